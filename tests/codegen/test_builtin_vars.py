"""Built-in variables: a probe's arguments and names, facts of the task, and time stamps."""

from __future__ import annotations

import pytest

from probekit.errors import UnsupportedError
from probekit.kernel.syscalls import COMPAT_ARGS, COMPAT_CALL, SYSCALL_ARGS, X32_BIT, SyscallEntry
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.compared import Compared, compare
from tests.codegen.emulated_kernel import (
    DONE,
    KMEM,
    OFFSETS,
    SAVED_NUMBER,
    STACK_TOP,
    STACK_TOP_WORD,
    SYSCALLS,
    TASK,
)
from tests.codegen.machine import Machine


def test_arguments_after_the_sixth_are_on_the_stack() -> None:
    guest = Machine("fbt::: { " + " ".join(f"trace(arg{n});" for n in range(10)) + " }")
    for n in range(4):
        guest.write(STACK_TOP + 8 + 8 * n, (100 + n).to_bytes(8, "little"))
    guest.fire(rdi=1, rsi=2, rdx=3, rcx=4, r8=5, r9=6)
    (record,) = guest.drain()
    assert [int.from_bytes(record.payload[8 * n : 8 * n + 8], "little") for n in range(10)] == [
        *range(1, 7),
        *range(100, 104),
    ]


def test_a_return_has_its_offset_and_value_and_no_other_argument() -> None:
    """arg0: the exit's offset; arg1: what is returned; the rest is 0."""
    code = NOP5 + "4885ff7505" + RET + RET  # test rdi, rdi; jnz second ret
    guest = Machine("fbt::: { trace(arg0); trace(arg1); trace(arg2); trace(arg7); }", [Function(code, "return")])
    assert [site.offset for site in guest.sites] == [10, 15]
    for rdi, offset in ((0, 10), (1, 15)):
        guest.fire(rdi=rdi, rax=-3, rdx=9)
        (record,) = guest.drain()
        words = [int.from_bytes(record.payload[n : n + 8], "little", signed=True) for n in range(0, 32, 8)]
        assert words == [offset, -3, 0, 0]


def test_the_names_and_numbers_are_those_of_the_probe() -> None:
    text = 'fbt::: { printf("%s %s %s %s %d %d", probeprov, probemod, probefunc, probename, id, epid); }'
    compare(text, (1,))
    both = Compared(
        """fbt::: { trace(epid); }
        fbt::: { trace(id); trace(arg0 ? probefunc : "-"); @[probename == "entry", epid] = count(); }""",
        functions=(Function(), Function(NOP5 + RET, "return"), Function()),
    )
    for n in range(6):
        both.fire(n & 1, function=n % 3)
    both.check()


def test_facts_are_those_of_the_running_task() -> None:
    for pid, tid, cpu, comm in ((1, 1, 0, b"init"), (-1, -2, 255, b""), (1 << 30, 7, 1, b"fifteen letters")):
        compare(
            'fbt::: { printf("%d %d %d %s", pid, tid, cpu, execname); @[pid, tid, cpu, execname] = count(); }',
            (1,),
            (2,),
            pid=pid,
            tid=tid,
            cpu=cpu,
            comm=comm,
        )


@pytest.mark.parametrize("name", ["pid", "tid", "cpu", "execname"])
def test_without_types_a_fact_of_the_task_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        Machine(f"fbt::: {{ trace({name}); }}", task=None)
    assert caught.value.feature == name
    assert Machine(f"fbt::: {{ {name}; trace(1); }}", task=None).fire().fault == 0  # nobody asks for it


def test_without_a_clock_a_timestamp_is_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        Machine("fbt::: { @ = max(timestamp); }", clock=None)
    assert caught.value.feature == "timestamp"


def test_timestamps_by_a_shared_counter_only_grow() -> None:
    """Nanoseconds of the counter that the record's own time stamp is read from; they only grow."""
    guest = Machine("fbt::: { trace(timestamp); trace(timestamp); }", tsc_khz=3_000_000, tsc_shared=True)
    last = 0
    for _ in range(5):
        assert guest.fire().fault == 0
        (record,) = guest.drain()
        first, second = (int.from_bytes(record.payload[at : at + 8], "little") for at in (0, 8))
        assert last <= record.timestamp // 3 <= first + 1 and first <= second
        last = second


@pytest.mark.parametrize(("compat", "offsets", "mask"), [(False, SYSCALL_ARGS, -1), (True, COMPAT_ARGS, 0xFFFFFFFF)])
def test_a_system_calls_arguments_are_the_programs(compat: bool, offsets: tuple[int, ...], mask: int) -> None:
    """A 32-bit program's are in other registers and have 32 bits; there are six of them."""
    text = "fbt::: { " + " ".join(f"trace(arg{n});" for n in range(7)) + " trace(arg1 + arg2); @ = sum(arg5); }"
    guest = Machine(text, [Function(kind="syscall", compat=compat)])
    values = [0xFFFFFFFF_00000000 - n for n in range(6)]
    for offset, value in zip(offsets, values, strict=True):
        guest.write(KMEM + offset, value.to_bytes(8, "little"))
    assert guest.fire(rdi=KMEM).fault == 0
    (record,) = guest.drain()
    words = [int.from_bytes(record.payload[8 * n : 8 * n + 8], "little") for n in range(8)]
    expected = [value & mask & (1 << 64) - 1 for value in values]
    assert words == [*expected, 0, (expected[1] + expected[2]) & (1 << 64) - 1]


@pytest.mark.parametrize(
    ("compat", "saved", "fires"),
    [
        (False, 39, (39, None)),
        (False, 39 | X32_BIT, (39, None)),
        (False, 0xDEAD << 32 | 39, (39, None)),
        (True, 39, (39 | COMPAT_CALL, None)),
        (False, 20, (None,)),
    ],
)
def test_where_several_system_calls_end_the_number_and_the_way_in_decide(
    compat: bool, saved: int, fires: tuple[int | None, ...]
) -> None:
    """One exit with a probe for each number: of a 64-bit and of a 32-bit program, and the function's own return."""
    ranges = ((DONE, DONE + 1),)
    entry = SyscallEntry(((1, 2),), STACK_TOP_WORD, ranges) if compat else SYSCALLS
    numbers = (39, 39 | COMPAT_CALL, None)
    functions = [Function(kind="sysret", call=39)]
    functions += [Function("", "sysret", None, 0, 0, call) for call in numbers[1:]]
    guest = Machine("fbt::: { trace(arg0); }", functions, entry=entry)
    guest.write(SAVED_NUMBER, saved.to_bytes(8, "little"))
    assert guest.fire(0, rax=-2).fault == 0
    assert tuple(numbers[record.site] for record in guest.drain()) == fires


def test_another_function_that_ends_there_is_no_system_call() -> None:
    guest = Machine(
        "fbt::: { trace(1); }", [Function(kind="sysret", call=39)], entry=SyscallEntry(((1, 2),), STACK_TOP_WORD)
    )
    guest.write(SAVED_NUMBER, (39).to_bytes(8, "little"))
    assert guest.fire(0).fault == 0 and guest.drain() == []


@pytest.mark.parametrize(
    ("status", "saved", "x32", "abi"),
    [
        (0, 4, True, b"x86_64"),
        (2, 4, True, b"i386"),
        (1, 4 | X32_BIT, True, b"x32"),
        (0, 4 | X32_BIT, False, b"x86_64"),
        (0, -1 & (1 << 64) - 1, True, b"x86_64"),
    ],
)
def test_the_abi_of_the_system_call_is_the_kernels_own_word(status: int, saved: int, x32: bool, abi: bytes) -> None:
    entry = SyscallEntry(SYSCALLS.callers, STACK_TOP_WORD, (), x32)
    guest = Machine("fbt::: { trace(curabi); @[curabi] = count(); }", entry=entry)
    guest.write(TASK + (OFFSETS.status or 0), status.to_bytes(4, "little"))
    guest.write(SAVED_NUMBER, saved.to_bytes(8, "little"))
    assert guest.fire().fault == 0
    (record,) = guest.drain()
    assert record.payload[:16] == abi.ljust(16, b"\0") and guest.table(0) == {(abi,): (1,)}


def test_the_abi_needs_the_kernels_types() -> None:
    with pytest.raises(UnsupportedError, match=r"thread_info\.status"):
        Machine("fbt::: { trace(curabi); }", task=None)
