"""A kernel's services by what it has: memory of each kind, how it is made executable, and what waits for readers."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.errors import GuestError, UnsupportedError
from probekit.guest.calls import MemoryKind
from probekit.guest.linux import STAMP_SIZE, Allocation, LinuxServices, find_services, stamp_of

OLD = "module_alloc module_memfree vzalloc vfree __alloc_percpu free_percpu set_memory_ro set_memory_x synchronize_rcu"
NEW = (
    "execmem_alloc execmem_free vzalloc_noprof vfree pcpu_alloc_noprof free_percpu set_memory_rox "
    "synchronize_rcu_tasks synchronize_rcu"
)


class Point:
    """``calls``: the name of each function called and its arguments. ``written``: memory that was written."""

    token = b"token 01"

    def __init__(self, symbols: dict[str, int], value: int = 0xFFFFC90000010000) -> None:
        self.names = {addr: name for name, addr in symbols.items()}
        self.calls: list[tuple[Any, ...]] = []
        self.value = value
        self.written: list[tuple[int, bytes]] = []

    def write(self, addr: int, data: bytes) -> None:
        self.written.append((addr, data))

    def call(self, function: int, *args: int, **_: Any) -> int:
        self.calls.append((self.names[function], *args))
        return self.value

    def call_pointer(self, function: int, *args: int, what: str, **more: Any) -> int:
        if not self.call(function, *args):
            raise GuestError(f"could not allocate {what}")
        return self.value


def made(names: str) -> tuple[LinuxServices, Point, Any]:
    symbols = {name: 0x1000 + 16 * n for n, name in enumerate(names.split())}
    point = Point(symbols)
    return find_services(symbols.get), point, point


@pytest.mark.parametrize(
    ("names", "kind", "call"),
    [
        (OLD, "exec", ("module_alloc", 8192)),
        (OLD, "data", ("vzalloc", 8192)),
        (OLD, "grace", ("vzalloc", 8192)),
        (OLD, "percpu", ("__alloc_percpu", 5000, 64)),
        (NEW, "exec", ("execmem_alloc", 0, 8192)),
        (NEW, "data", ("vzalloc_noprof", 8192)),
        (NEW, "percpu", ("pcpu_alloc_noprof", 5000, 64, 0, 0xCC0)),
    ],
)
def test_memory_of_each_kind(names: str, kind: MemoryKind, call: tuple[Any, ...]) -> None:
    services, point, shown = made(names)
    memory = services.allocate(shown, kind, 5000)
    assert point.calls == [call] and memory == Allocation(kind, point.value, 5000 if kind == "percpu" else 8192)
    if kind == "percpu":
        assert point.written == [] and (memory.stamp, memory.room) == (None, 5000)
    else:
        assert point.written == [(point.value + 8192 - STAMP_SIZE, stamp_of(b"token 01"))]
        assert (memory.stamp, memory.room) == (point.value + 8192 - STAMP_SIZE, 8192 - STAMP_SIZE)


def test_the_stamp_has_room_of_its_own() -> None:
    services, _, shown = made(NEW)
    assert services.allocate(shown, "data", 8192 - STAMP_SIZE).size == 8192
    assert services.allocate(shown, "data", 8192 - STAMP_SIZE + 1).size == 12288


def test_without_a_journal_there_is_no_stamp() -> None:
    services, point, shown = made(NEW)
    point.token = b""
    services.allocate(shown, "data", 5000)
    assert point.written == []


@pytest.mark.parametrize(
    ("names", "kind", "free"),
    [
        (OLD, "exec", "module_memfree"),
        (OLD.replace("module_memfree ", ""), "exec", "vfree"),
        (NEW, "exec", "execmem_free"),
        (NEW, "grace", "vfree"),
        (NEW, "percpu", "free_percpu"),
    ],
)
def test_memory_goes_back_to_where_it_came_from(names: str, kind: MemoryKind, free: str) -> None:
    services, point, shown = made(names)
    services.free(shown, Allocation(kind, 0x7000, 4096))
    assert point.calls == [(free, 0x7000)]


def test_executable_memory_is_made_so_as_the_kernel_does_it() -> None:
    for names, calls in ((OLD, ["set_memory_ro", "set_memory_x"]), (NEW, ["set_memory_rox"])):
        services, point, shown = made(names)
        services.make_executable(shown, Allocation("exec", 0x7000, 8192))
        assert point.calls == [(name, 0x7000, 2) for name in calls]


def test_all_kinds_of_readers_are_waited_for() -> None:
    for names, calls in ((OLD, ["synchronize_rcu"]), (NEW, ["synchronize_rcu_tasks", "synchronize_rcu"])):
        services, point, shown = made(names)
        services.synchronize(shown)
        assert point.calls == [(name,) for name in calls]


@pytest.mark.parametrize(
    ("missing", "said"),
    [("module_alloc", "exec memory"), ("vzalloc", "data memory"), ("free_percpu", "percpu memory")],
)
def test_what_a_kernel_lacks_is_named(missing: str, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        made(" ".join(name for name in OLD.split() if name != missing))


def test_no_memory_is_an_error() -> None:
    services, point, shown = made(OLD)
    point.value = 0
    with pytest.raises(GuestError, match="8192 bytes of data memory"):
        services.allocate(shown, "data", 5000)


@pytest.mark.parametrize("kind", ["exec", "data", "grace"])
def test_an_address_that_is_no_kernel_address_is_not_taken(kind: MemoryKind) -> None:
    services, point, shown = made(NEW)
    point.value = 0x7FFF00001000
    with pytest.raises(GuestError, match="no kernel address"):
        services.allocate(shown, kind, 5000)
