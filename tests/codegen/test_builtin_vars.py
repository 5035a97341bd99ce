"""Built-in variables: a probe's arguments and names, facts of the task, and time stamps."""

from __future__ import annotations

import pytest

from probekit.errors import UnsupportedError
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.compared import Compared, compare
from tests.codegen.emulated_kernel import (
    STACK_TOP,
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
