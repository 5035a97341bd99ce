"""Clauses that take their own time: counted exactly, timed one in so many, and nothing else is different."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import SAMPLED_ONE_IN, HeaderWord
from probekit.errors import UnsupportedError
from probekit.lang.diagnostics import CompileError
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.compared import Compared
from tests.codegen.machine import Machine
from tests.codegen.scripts import scripts

RETURN = Function(NOP5 + RET, "return")


def words(machine: Machine) -> tuple[int, list[tuple[int, int, int]]]:
    """Entries; firings, samples and ticks of each clause."""
    costs = machine.layout.costs
    assert costs is not None

    def word(offset: int) -> int:
        return int.from_bytes(machine.read(machine.block + offset, 8), "little")

    each = [(word(costs.firings(n)), word(costs.samples(n)), word(costs.ticks(n))) for n in range(costs.clauses)]
    return word(costs.entries), each


def test_every_firing_is_counted_and_one_in_so_many_timed() -> None:
    text = (
        "fbt::: { trace(arg0); } fbt::: /arg0 > 2/ { @ = sum(arg0); } fbt::: /arg0 == 5/ { @d = sum(1 / (arg0 - 5)); }"
    )
    machine = Machine(text, measured=True, bufsize=1 << 16)
    for n in range(100):
        assert machine.fire(rdi=n % 7).bad == ()
    entries, each = words(machine)
    timed = -(-100 // SAMPLED_ONE_IN)
    assert entries == 100 and [firings for firings, _, _ in each] == [100] * 3
    assert [samples for _, samples, _ in each] == [timed] * 3 and all(ticks > 0 for _, _, ticks in each)


def test_a_sample_is_a_millisecond_at_most() -> None:
    machine = Machine("fbt::: { trace(arg0); }", measured=True, tsc_khz=1)
    machine.fire()
    assert words(machine)[1] == [(1, 1, 1)]


def test_exit_leaves_the_clock_alone() -> None:
    machine = Machine("fbt::: { trace(1); exit(0); }", measured=True)
    machine.fire()
    machine.fire()
    assert words(machine) == (1, [(1, 0, 0)]) and machine.word(HeaderWord.GUARD) == 0


def test_without_measuring_there_is_no_code_for_it() -> None:
    plain, measured = (Machine("fbt::: { trace(arg0); }", measured=on) for on in (False, True))
    assert plain.layout.costs is None and plain.built.calibrations is None
    assert len(plain.image.code) < len(measured.image.code)


def test_increments_stay_inline_where_their_sum_says_how_many() -> None:
    text = "fbt::: { @a[probefunc] = count(); } fbt::: { @b = count(); } fbt::: { @b = count(); }"
    functions = [Function(clauses=(0,)), Function(clauses=(1,)), Function(clauses=(2,))]
    machine = Machine(text, functions, measured=True)
    assert machine.inline == ((0,), None, None), "two clauses count in @b"
    assert Machine(text, functions).inline == ((0,), (1,), (1,))


@pytest.mark.parametrize("preemptible", [False, True])
def test_calibrations_leave_no_trace(preemptible: bool) -> None:
    machine = Machine("fbt::: { @ = count(); } fbt::: { trace(1); }", measured=True, preemptible=preemptible)
    assert machine.built.calibrations is not None and machine.layout.costs is not None
    spare = machine.layout.costs.spare
    before = machine.memory()
    ticks = [machine.call(function) for function in machine.built.calibrations]
    assert all(0 < count < 1 << 40 for count in ticks)
    after = bytearray(machine.memory())
    at = machine.plan.block(1) + spare
    assert after[at : at + 8] != before[at : at + 8]
    after[at : at + 8] = before[at : at + 8]
    assert bytes(after) == before


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(scripts(), st.lists(st.tuples(*[st.integers(-9, 9)] * 3), min_size=1, max_size=5))
def test_any_script_does_the_same_when_it_is_measured(text: str, firings: list[tuple[int, ...]]) -> None:
    try:
        both = Compared(text, functions=(Function(), RETURN), measured=True, aggsize=1 << 14)
    except (CompileError, UnsupportedError):
        assume(False)
    for number, args in enumerate(firings):
        both.fire(*args, function=number & 1)
    both.check()
    assert len(both.machine.code) <= both.machine.bound
