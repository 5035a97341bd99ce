"""What the providers get of a kernel: memory is read while it runs where that works, and stands still where not."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.errors import SymbolError, TargetError
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.markers import KERNEL_MARKERS
from probekit.kernel.symbols import ModuleSymbols, SymbolTable
from probekit.providers.api import KERNEL_MODULE
from probekit.providers.from_kernel import GuestMarkers, GuestTracepoints, LiveMemory, find_variable, guest_functions

BASE = 0xFFFFFFFF81000000


class Clock:
    """Counts the pauses."""

    def __init__(self) -> None:
        self.pauses = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pauses += 1
        yield


class Ram:
    """Memory that can be read while the guest runs."""

    invalidated = 0

    def invalidate(self) -> None:
        self.invalidated += 1


def _live(ram: Ram | None) -> tuple[LiveMemory, Clock]:
    clock: Any = Clock()
    memory: Any = ram
    return LiveMemory(clock, memory), clock


def test_memory_is_read_anew_while_the_guest_runs() -> None:
    ram = Ram()
    live, clock = _live(ram)
    assert live.read(lambda memory: memory is not None) is True
    assert (clock.pauses, ram.invalidated) == (0, 1)


@pytest.mark.parametrize("error", [SymbolError("a list that changes"), TargetError("unreadable")])
def test_what_fails_while_the_guest_runs_is_read_again_in_a_pause(error: Exception) -> None:
    live, clock = _live(Ram())

    def find(memory: object) -> str:
        if memory is not None:
            raise error
        return "still"

    assert live.read(find) == "still" and clock.pauses == 1


def test_a_failure_in_the_pause_is_raised() -> None:
    live, clock = _live(None)

    def find(_memory: object) -> None:
        raise SymbolError("damaged")

    with pytest.raises(SymbolError, match="damaged"):
        live.read(find)
    assert clock.pauses == 1


def _kernel(modules: tuple[ModuleSymbols, ...] = (), **names: int) -> Any:
    rows = sorted((addr, name) for name, addr in {"_text": BASE, **names}.items())
    raw = RawSymbols(array("Q", [addr for addr, _ in rows]), [name for _, name in rows], "T" * len(rows), "unsigned")
    return SimpleNamespace(
        symbols=SymbolTable(raw, modules),
        count_tracepoints=lambda: 3,
        tracepoints=lambda memory: ("tracepoint", memory),
        markers=lambda memory: ("marker", memory),
    )


def test_a_variable_has_the_room_up_to_the_next_symbol_and_its_module() -> None:
    module = ModuleSymbols("ext4", [BASE + 0x100000, BASE + 0x100040], ["counter", "end"], "dd", [16, 0])
    kernel = _kernel((module,), jiffies=BASE + 0x1000, after=BASE + 0x1008)
    assert find_variable(kernel, "jiffies") == (BASE + 0x1000, 8, KERNEL_MODULE)
    found = find_variable(kernel, "counter")
    assert found is not None and (found.addr, found.module) == (BASE + 0x100000, "ext4")
    assert find_variable(kernel, "nosuch") is None


def test_functions_of_init_text_are_left_out() -> None:
    kernel = _kernel(
        f=BASE + 0x100, __init_begin=BASE + 0x1000, early=BASE + 0x1100, __init_end=BASE + 0x2000, g=BASE + 0x2100
    )
    names = {function.name for function in guest_functions(kernel)}
    assert "early" not in names and {"f", "g"} <= names


def test_tracepoints_are_counted_at_once_and_read_when_they_are_needed() -> None:
    live, clock = _live(None)
    kernel = _kernel(__tracepoint_sched_switch=BASE + 0x1000)
    points = GuestTracepoints(kernel, live)
    assert points.count == 3 and clock.pauses == 0
    assert points.may_exist("sched_switch") and not points.may_exist("nosuch")
    assert points.all() == ("tracepoint", None) and clock.pauses == 1


def test_markers_are_likely_where_the_kernel_has_a_section_of_them() -> None:
    live, _ = _live(None)
    assert not GuestMarkers(_kernel(), live).may_exist
    markers = GuestMarkers(_kernel(**{KERNEL_MARKERS: BASE + 0x1000}), live)
    assert markers.may_exist and markers.all() == ("marker", None)
