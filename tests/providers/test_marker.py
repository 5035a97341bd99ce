"""Names of marker probes, and when the guest is searched for them."""

from __future__ import annotations

from probekit.kernel.markers import Marker
from probekit.probe.names import ProbeDescription
from probekit.providers.api import Function
from probekit.providers.function_table import FunctionTable
from probekit.providers.registry import make_registry


def _marker(name: str, function: str = "f", module: str = "mod", refusal: str = "") -> Marker:
    return Marker(0x10, name, function, module, 7, (), 0x20, (), True, refusal)


MARKERS = (_marker("one"), _marker("two", "g"), _marker("boot", module=""), _marker("0x99", refusal="no name"))


class Guest:
    """Counts how often it is searched."""

    def __init__(self, may_exist: bool) -> None:
        self.may_exist = may_exist
        self.searches = 0

    def all(self) -> tuple[Marker, ...]:
        self.searches += 1
        return MARKERS


def _names(guest: Guest, *texts: str) -> list[str]:
    registry = make_registry(_TABLE, markers=guest)
    return [str(p.name) for text in texts for p in registry.match(ProbeDescription.parse(text))]


_TABLE = FunctionTable((Function(0x1000, 16, "vfs_read", "vmlinux"),))


def test_names() -> None:
    assert _names(Guest(may_exist=True), "marker:::") == [
        "marker:mod:f:one",
        "marker:mod:g:two",
        "marker:vmlinux:f:boot",
        "marker:mod:f:0x99",
    ]
    assert _names(Guest(may_exist=True), "marker:mod:f:o*", "two", "::g:") == [
        "marker:mod:f:one",
        "marker:mod:g:two",
        "marker:mod:g:two",
    ]


def test_a_guest_without_signs_of_markers_is_searched_only_when_told_to() -> None:
    guest = Guest(may_exist=False)
    assert _names(guest, "BEGIN", "two", "fbt:::", ":::nothing") and guest.searches == 0
    assert _names(guest, "mark*:::two") == ["marker:mod:g:two"] and guest.searches == 1


def test_numbers_are_given_once() -> None:
    registry = make_registry(_TABLE, markers=Guest(may_exist=True))
    (tick,) = registry.match(ProbeDescription.parse("tick-3s"))
    every = list(registry.match(ProbeDescription.parse("marker:::")))
    assert len({p.id for p in every} | {tick.id}) == 5
    assert all(registry.by_id(p.id) == p for p in every)
    assert list(registry.match(ProbeDescription.parse("marker:::"))) == every
