"""When our code may be given back: nobody is in it, and nobody comes back to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from probekit.guest.stack_search import StackSearch, quiescent_point
from probekit.kernel.tasks import Task
from probekit.target.api import Regs

CODE = (0xFFFFFFFFC0400000, 0xFFFFFFFFC0401000)
OTHER = (0xFFFFFFFFC0900000, 0xFFFFFFFFC0900100)
STACK = 0xFFFFC90000010000
SIZE = 0x4000
ELSEWHERE = 0xFFFFFFFF81000123


def task(number: int, *, used: int = 64, on_cpu: bool = False) -> Task:
    start = STACK + number * 2 * SIZE
    return Task(0x1000 * number, number, number, f"t{number}", 0, start, start + SIZE, start + SIZE - used, on_cpu)


class FakeGuest:
    """``words``: what lies on stacks, by address; all else is 0. ``standing``: rip and rsp of each vCPU."""

    def __init__(self, standing: Sequence[tuple[int, int]], words: dict[int, int]) -> None:
        self.standing, self.words = standing, words
        self.more: dict[str, int] = {}
        self.resumed = 0

    def vcpus(self) -> tuple[int, ...]:
        return tuple(range(1, len(self.standing) + 1))

    def regs(self, vcpu: int) -> Regs:
        rip, rsp = self.standing[vcpu - 1]
        return Regs({"rip": rip, "rsp": rsp, "cs": 0x33 if rip < 1 << 47 else 0x10, **self.more}, b"")

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [
            b"".join(self.words.get(at, 0).to_bytes(8, "little") for at in range(addr, addr + size, 8))
            for addr, size in ranges
        ]

    def resume(self) -> None:
        self.resumed += 1


TASKS = (task(1, on_cpu=True), task(2))
TOP, SLEEPS = TASKS[0].stack_end, TASKS[1].saved_sp


def code_is_unused(standing: Sequence[tuple[int, int]], words: dict[int, int] | None = None) -> bool:
    guest: Any = FakeGuest(standing, words or {})
    return StackSearch(lambda: TASKS, None).code_is_unused(guest, guest, [CODE, OTHER])


def test_all_are_elsewhere() -> None:
    assert code_is_unused([(ELSEWHERE, TOP - 32)], {TOP - 16: ELSEWHERE, SLEEPS: ELSEWHERE})
    assert code_is_unused([(0x401000, 0x7FFF0000)]), "in user space its kernel stack is empty"


@pytest.mark.parametrize("rip", [CODE[0], CODE[1] - 1, OTHER[0] + 5])
def test_a_processor_stands_in_it(rip: int) -> None:
    assert not code_is_unused([(rip, TOP - 32)])


def test_a_processor_is_about_to_call_it() -> None:
    guest: Any = FakeGuest([(ELSEWHERE, TOP - 32)], {})
    guest.more = {"rax": CODE[0] + 0x40}
    assert not StackSearch(lambda: TASKS, None).code_is_unused(guest, guest, [CODE])


@pytest.mark.parametrize("at", [TOP - 32, TOP - 8, SLEEPS, TASKS[1].stack_end - 8])
def test_somebody_comes_back(at: int) -> None:
    assert not code_is_unused([(ELSEWHERE, TOP - 32)], {at: OTHER[0] + 8})


def test_what_lies_below_a_stack_is_nobodys() -> None:
    assert code_is_unused([(ELSEWHERE, TOP - 32)], {TOP - 40: CODE[0], SLEEPS - 8: CODE[0]})


def test_a_processor_on_a_stack_of_interrupts_may_come_back() -> None:
    assert not code_is_unused([(ELSEWHERE, 0xFFFFFE0000001000)])


def visits(settled: Callable[[Any], bool] | None, *, callback: bool = True) -> tuple[list[str], int]:
    """What is done in which order when code is to be given back, and how often the guest ran meanwhile."""
    done: list[str] = []
    guest: Any = FakeGuest([], {})

    @contextmanager
    def point() -> Iterator[Any]:
        done.append("point")
        yield None

    def wait(_point: Any) -> Callable[[], None]:
        done.append("wait")
        return lambda: done.append("gone")

    with quiescent_point(
        point,
        guest,
        lambda _: done.append("synchronize"),
        lambda _: [],
        prepare=lambda _: done.append("prepare"),
        wait=wait if callback else None,
        settled=settled,
    ):
        done.append("free")
    return done, guest.resumed


def test_one_visit_is_enough_when_nobody_is_there() -> None:
    assert visits(lambda _: True) == (["point", "prepare", "free"], 0)


@pytest.mark.parametrize("settled", [None, lambda _: False])
def test_else_readers_are_waited_for(settled: Callable[[Any], bool] | None) -> None:
    assert visits(settled) == (["point", "prepare", "wait", "gone", "point", "free"], 1)


def test_a_kernel_that_calls_nobody_back_waits_in_a_guest_call() -> None:
    assert visits(None, callback=False) == (["point", "prepare", "synchronize", "free"], 0)
