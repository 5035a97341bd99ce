"""Asking the guest's kernel to tell when its readers are gone, and not waiting for ever."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from probekit.errors import GuestError
from probekit.guest.grace_period import GraceServices, find_grace_services
from probekit.guest.linux import STAMP_SIZE, Allocation
from probekit.guest.memory import PauseClock
from probekit.kernel.btf import Btf
from probekit.kernel.tasks import Task
from tests.kernel.fakes import BtfWriter
from tests.support.fake_target import FakeTarget

PAGE = 0xFFFFC90000010000
TASKS = 0xFFFF888000000000
SERVICES = GraceServices(
    starts=((0x100, ()), (0x200, ())),
    traced=((0x300, (0x999,)),),
    callback=0x400,
    stride=64,
    head=0,
    function=8,
    done=16,
    lock=24,
    links=32,
    holdout=8,
)


class Target(FakeTarget):
    """A fake one that can be stopped."""

    def stop(self) -> None:
        self.running = False


class Point:
    """Remembers the calls, and does what all of them do first."""

    def __init__(self, target: Target) -> None:
        self.calls: list[tuple[int, ...]] = []
        self._memory = target.memory[PAGE]

    def call(self, function: int, *args: int) -> int:
        self.calls.append((function, *args))
        at = args[-2] - PAGE + SERVICES.function
        self._memory[at : at + 8] = args[-1].to_bytes(8, "little")
        return 0


class Linux:
    """Has one page."""

    def allocate(self, point: object, kind: str, size: int) -> Allocation:
        assert kind == "grace"
        return Allocation("grace", PAGE, size)


def _task(number: int) -> Task:
    addr = TASKS + 0x100 * number
    return Task(addr, number, number, f"t{number}", 0, 0, 0, 0, on_cpu=False)


def _begin(traced: bool) -> tuple[Any, Point, Target]:
    target = Target({PAGE: bytearray(4096), TASKS: bytearray(4096)})
    point, services = Point(target), Linux()
    some: Any = point
    linux: Any = services
    taken: list[Allocation] = []
    waiting = SERVICES.begin(some, linux, target, taken.append, traced=traced)
    assert taken == [Allocation("grace", PAGE, 4096 - STAMP_SIZE)]
    return waiting, point, target


def test_each_kind_of_reader_has_a_structure_of_its_own() -> None:
    _, point, target = _begin(traced=True)
    assert point.calls == [
        (0x100, PAGE, 0x400),
        (0x200, PAGE + 64, 0x400),
        (0x300, 0x999, PAGE + 128, 0x400),
    ]
    for number in range(3):
        at = PAGE + 64 * number + SERVICES.links
        assert struct.unpack("<QQ", target.read(at, 16)) == (at, at)
    assert len(_begin(traced=False)[1].calls) == 2


def test_it_is_over_when_all_have_completed() -> None:
    waiting, _, target = _begin(traced=False)
    memory = target.memory[PAGE]
    assert not waiting.over(target)
    memory[16] = 1
    assert not waiting.over(target)
    memory[64 + 16] = 1
    memory[64 + 24] = 1
    assert not waiting.over(target), "the kernel still has to unlock it"
    memory[64 + 24] = 0
    assert waiting.over(target)
    anything: Any = target
    target.running = True
    waiting.wait(target, PauseClock(anything), 0.0, list)
    assert target.running


def test_a_page_that_the_kernel_was_never_told_of_is_not_waited_for() -> None:
    assert SERVICES.over(bytes(4096))
    page = bytearray(4096)
    page[128 + SERVICES.function] = 1
    assert not SERVICES.over(page), "any of those that there may be"
    page[128 + SERVICES.done] = 1
    assert SERVICES.over(page)


def test_those_who_hold_it_up_are_named() -> None:
    waiting, _, target = _begin(traced=False)
    target.memory[PAGE][16] = 1
    target.memory[TASKS][0x200 + 8] = 1
    anything: Any = target
    target.running = True
    with pytest.raises(GuestError, match=r"t2 \(2\) kept from running"):
        waiting.wait(target, PauseClock(anything), 0.01, lambda: [_task(1), _task(2)])
    assert target.running, "the guest goes on"


def _btf() -> Btf:
    w = BtfWriter()
    word, number, byte = w.int("long unsigned int", 8, signed=False), w.int("int", 4), w.int("u8", 1, signed=False)
    lists = w.struct("list_head", 16, [("next", word, 0), ("prev", word, 64)])
    queue = w.struct("swait_queue_head", 24, [("lock", number, 0), ("task_list", lists, 64)])
    completion = w.struct("completion", 32, [("done", number, 0), ("wait", queue, 64)])
    head = w.struct("callback_head", 16, [("next", word, 0), ("func", word, 64)])
    w.struct("rcu_synchronize", 48, [("head", head, 0), ("completion", completion, 128)])
    w.struct("task_struct", 64, [("rcu_tasks_holdout", byte, 72)])
    return Btf(w.data())


NAMES = {"wakeme_after_rcu": 1, "call_rcu": 2, "call_rcu_tasks": 3, "synchronize_rcu_tasks": 4, "tracepoint_srcu": 5}
NAMES |= {"call_srcu": 6, "call_rcu_tasks_trace": 7}


def test_what_a_kernel_has() -> None:
    found = find_grace_services(NAMES.get, _btf())
    assert found is not None
    assert found.starts == ((2, ()), (3, ())) and found.traced == ((6, (5,)), (7, ()))
    assert (found.stride, found.head, found.function, found.done) == (64, 0, 8, 16)
    assert (found.lock, found.links, found.holdout) == (24, 32, 9)
    hurry = find_grace_services((NAMES | {"call_rcu_hurry": 8}).get, _btf())
    assert hurry is not None and hurry.starts[0] == (8, ())
    few = {name: NAMES[name] for name in ("wakeme_after_rcu", "call_rcu")}
    plain = find_grace_services(few.get, _btf())
    assert plain is not None and plain.starts == ((2, ()),) and plain.traced == ()


def test_kernels_where_the_wait_has_to_be_a_call() -> None:
    assert find_grace_services(NAMES.get, None) is None
    assert find_grace_services(NAMES.get, Btf(BtfWriter().data())) is None
    for name in ("wakeme_after_rcu", "call_rcu", "call_rcu_tasks"):
        assert find_grace_services({k: v for k, v in NAMES.items() if k != name}.get, _btf()) is None
