"""Each guest call that changes what is ours says so: a recovery reads it in the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from probekit.guest.calls import (
    AddListEntry,
    Allocate,
    CallPurpose,
    Free,
    GetModule,
    OtherCall,
    PutModule,
    RemoveListEntry,
    is_pointer,
)
from probekit.guest.linux import Allocation, LinuxServices, find_services
from probekit.guest.module_refs import ModuleRefs
from probekit.guest.trap_registration import TrapServices

MODULE, HEAD = 0xFFFFFFFFC0300040, 0xFFFFFFFF82000000
PAGE = 0xFFFFC90000010000


class Point:
    """Answers every call with a pointer, and keeps the purposes."""

    token = b""

    def __init__(self) -> None:
        self.purposes: list[CallPurpose] = []

    def call(self, function: int, *args: int, timeout: float = 60.0, purpose: CallPurpose = OtherCall()) -> int:  # noqa: B008
        self.purposes.append(purpose)
        return PAGE | 1

    def call_pointer(self, function: int, *args: int, what: str, purpose: CallPurpose = OtherCall()) -> int:  # noqa: B008
        self.purposes.append(purpose)
        return PAGE


def services() -> LinuxServices:
    names = "execmem_alloc execmem_free vzalloc vfree __alloc_percpu free_percpu set_memory_rox synchronize_rcu"
    return find_services({name: number for number, name in enumerate(names.split(), 1)}.get)


def listed(ranges: Any) -> list[bytes | None]:
    """A list of modules with our one, which is live."""
    words = {HEAD: MODULE + 8, MODULE + 8: HEAD, MODULE: 0}
    return [words[addr].to_bytes(size, "little") for addr, size in ranges]


MODULE_REFS = ModuleRefs(get=1, put=2, modules=HEAD, link=8, state=0)
HOOKS = TrapServices({"die_notifier": (1, 2), "bpf_ksym": (3, 4)}, 5)


@pytest.mark.parametrize(
    ("do", "purposes"),
    [
        (lambda point: services().allocate(point, "data", 5000), [Allocate("data", 8192)]),
        (lambda point: services().allocate(point, "exec", 1), [Allocate("exec", 4096)]),
        (lambda point: services().allocate(point, "percpu", 8), [Allocate("percpu", 8)]),
        (lambda point: services().free(point, Allocation("grace", PAGE, 4096)), [Free(PAGE)]),
        (lambda point: services().make_executable(point, Allocation("exec", PAGE, 4096)), [OtherCall()]),
        (lambda point: services().synchronize(point), [OtherCall()]),
        (lambda point: MODULE_REFS.take(point, listed, MODULE), [GetModule(MODULE)]),
        (lambda point: MODULE_REFS.give_back(point, MODULE), [PutModule(MODULE)]),
        (lambda point: HOOKS.add(point, "die_notifier", PAGE), [AddListEntry("die_notifier", PAGE)]),
        (lambda point: HOOKS.remove(point, "bpf_ksym", PAGE), [RemoveListEntry("bpf_ksym", PAGE)]),
        (lambda point: HOOKS.settle(point), [OtherCall()]),
    ],
)
def test_what_a_call_is_for(do: Callable[[Any], object], purposes: list[CallPurpose]) -> None:
    point = Point()
    do(point)
    assert point.purposes == purposes


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, False), (1, True), (PAGE, True), ((1 << 64) - 4096, True), ((1 << 64) - 4095, False), ((1 << 64) - 1, False)],
)
def test_null_and_error_pointers(value: int, *, expected: bool) -> None:
    assert is_pointer(value) is expected
