"""Names and numbers of tracepoint probes, and when the guest is asked for them at all."""

from __future__ import annotations

from probekit.kernel.tracepoints import Tracepoint
from probekit.probe.names import ProbeDescription
from probekit.providers.api import Function
from probekit.providers.function_table import FunctionTable
from probekit.providers.registry import make_registry

POINTS = (
    Tracepoint(0x10, "sched_switch", "sched"),
    Tracepoint(0x20, ""),  # no name that could be used
    Tracepoint(0x30, "pelt_cfs_tp"),
    Tracepoint(0x40, "nullb_zone_op", "nullb", "null_blk", 7),
    Tracepoint(0x50, "bare", "", "null_blk", 7),
)


class Guest:
    """Counts how often it is looked at."""

    count = len(POINTS)
    looks = 0

    def may_exist(self, name: str) -> bool:
        return any(point.name == name for point in POINTS)

    def all(self) -> tuple[Tracepoint, ...]:
        self.looks += 1
        return POINTS


FUNCTIONS = FunctionTable((Function(0x1000, 16, "vfs_read", "vmlinux"),))


def _names(guest: Guest, text: str) -> list[str]:
    registry = make_registry(FUNCTIONS, tracepoints=guest)
    return [str(probe.name) for probe in registry.match(ProbeDescription.parse(text))]


def test_module_is_the_system() -> None:
    assert _names(Guest(), "tracepoint:::") == [
        "tracepoint:sched::sched_switch",
        "tracepoint:vmlinux::pelt_cfs_tp",
        "tracepoint:nullb::nullb_zone_op",
        "tracepoint:null_blk::bare",
    ]
    assert _names(Guest(), "tracepoint:sched::") == ["tracepoint:sched::sched_switch"]
    assert _names(Guest(), "trace*:::sched_*") == ["tracepoint:sched::sched_switch"]
    assert _names(Guest(), "sched_switch") == ["tracepoint:sched::sched_switch"]
    assert _names(Guest(), "nothing") == []
    assert _names(Guest(), "tracepoint::vfs_read:sched_switch") == []


def test_the_guest_is_looked_at_only_when_it_matters() -> None:
    guest = Guest()
    for text in ("BEGIN", "tick-1s", "fbt:::entry", "vfs_read:entry", "fbt::*:", "tracepoint:::no_such_one"):
        _names(guest, text)
    assert guest.looks == 0
    _names(guest, "::sched_*")
    assert guest.looks == 1


def test_numbers_do_not_change() -> None:
    registry = make_registry(FUNCTIONS, tracepoints=Guest())
    every = list(registry.match(ProbeDescription.parse("tracepoint:::")))
    assert [probe.id for probe in every] == [6, 8, 9, 10]
    assert all(registry.by_id(probe.id) == probe for probe in every)
    standard = list(registry.match(ProbeDescription.parse("profile:::")))
    first = 11 + 2 * 1024  # behind the room for system calls
    assert [probe.id for probe in standard] == list(range(first, first + 13))
    assert registry.by_id(7) is None and registry.by_id(first + 13) is None
    (tick,) = registry.match(ProbeDescription.parse("tick-1s"))
    assert tick.id == first + 13 and not tick.in_guest and every[0].in_guest
