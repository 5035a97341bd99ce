"""The guest's tasks: every thread is found once, and a list that makes no sense is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import ProbekitError, SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.memory import KernelMemory
from probekit.kernel.tasks import THREAD_SIZE, read_tasks, task_addresses

from .fakes import BtfWriter, FakeMemory

_TASKS, _NODE, _SIGNAL, _PID, _TGID, _STATE, _STACK, _SP, _COMM, _ON_CPU, _SIZE = range(0, 176, 16)
_AT, _STEP = 0xFFFF888000000000, 0x100


def _btf(*, smp: bool = True, state: str = "__state") -> Btf:
    w = BtfWriter()
    word, number, char = w.int("long", 8), w.int("int", 4), w.int("char", 1, char=True)
    links = w.struct("list_head", 16, [("next", word, 0), ("prev", word, 64)])
    comm = w.array(char, 16)
    thread = w.struct("thread_struct", 8, [("sp", word, 0)])
    members = [
        ("tasks", links, 8 * _TASKS), ("thread_node", links, 8 * _NODE), ("signal", word, 8 * _SIGNAL),
        ("pid", number, 8 * _PID), ("tgid", number, 8 * _TGID), (state, number, 8 * _STATE),
        ("stack", word, 8 * _STACK), ("thread", thread, 8 * _SP), ("comm", comm, 8 * _COMM),
    ]  # fmt: skip
    w.struct("task_struct", _SIZE, [*members, *([("on_cpu", number, 8 * _ON_CPU)] if smp else [])])
    w.struct("signal_struct", 32, [("thread_head", links, 128)])
    return Btf(w.data())


def _world(groups: list[int]) -> tuple[FakeMemory, list[int]]:
    """Groups of so many threads each; the first leader is ``init_task``. Also the threads' addresses, in order."""
    data = bytearray(_STEP * (sum(groups) + len(groups)))

    def put(addr: int, *words: int) -> None:
        struct.pack_into(f"<{len(words)}Q", data, addr - _AT, *words)

    threads: list[list[int]] = []
    at = _AT
    for size in groups:
        threads.append([at + _STEP * number for number in range(size)])
        signal = at + _STEP * size
        nodes = [thread + _NODE for thread in threads[-1]]
        ring = [signal + 16, *nodes]
        for here, after, before in zip(ring, [*ring[1:], ring[0]], [ring[-1], *ring[:-1]], strict=True):
            put(here, after, before)
        for thread in threads[-1]:
            put(thread + _SIGNAL, signal)
        at = signal + _STEP
    leaders = [group[0] + _TASKS for group in threads]
    for here, after in zip(leaders, [*leaders[1:], leaders[0]], strict=True):
        put(here, after, 0)
    for number, thread in enumerate(thread for group in threads for thread in group):
        struct.pack_into("<I", data, thread - _AT + _PID, number)
        struct.pack_into("<16s", data, thread - _AT + _COMM, b"t%d\0\xff" % number)
        put(thread + _STACK, 0x10000 * (number + 1))
        put(thread + _SP, 0x10000 * (number + 1) + 0x3000)
        struct.pack_into("<I", data, thread - _AT + _ON_CPU, number & 1)
    return FakeMemory((_AT, bytes(data))), [thread for group in threads for thread in group]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_every_thread_of_every_group_is_found_once(groups: list[int]) -> None:
    memory, threads = _world(groups)
    found = task_addresses(KernelMemory(memory), _btf(), _AT)
    assert found[0] == _AT and sorted(found) == threads


def test_a_task_is_read_with_its_stack_and_a_printable_name() -> None:
    memory, threads = _world([1, 2])
    tasks = read_tasks(KernelMemory(memory), _btf(), threads)
    assert [(task.pid, task.comm, task.on_cpu) for task in tasks] == [
        (0, "t0", False),
        (1, "t1", True),
        (2, "t2", False),
    ]
    assert (tasks[1].stack_start, tasks[1].stack_end, tasks[1].saved_sp) == (0x20000, 0x20000 + THREAD_SIZE, 0x23000)


def test_members_of_older_and_smaller_kernels_are_found_by_name() -> None:
    memory, threads = _world([2])
    old = read_tasks(KernelMemory(memory), _btf(smp=False, state="state"), threads)
    assert [task.on_cpu for task in old] == [False, False]


def test_a_task_at_unreadable_memory_is_refused() -> None:
    memory, _ = _world([1])
    with pytest.raises(SymbolError, match="unreadable"):
        read_tasks(KernelMemory(memory), _btf(), [0x1000])


@given(st.lists(st.tuples(st.integers(0, 0x7FF), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_a_damaged_list_ends_or_is_refused(edits: list[tuple[int, bytes]]) -> None:
    memory, _ = _world([2, 1, 2])
    segment = memory.segments[_AT]
    for at, data in edits:
        segment[at : at + len(data)] = data
    del segment[_STEP * 8 :]
    kernel = KernelMemory(memory)
    try:
        read_tasks(kernel, _btf(), task_addresses(kernel, _btf(), _AT))
    except ProbekitError:
        return
