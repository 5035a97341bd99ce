"""Clauses on the host: records byte for byte, predicates, faults, variables, aggregations."""

from __future__ import annotations

import pytest

from probekit.buffers.layout import FaultKind
from probekit.buffers.quantize import BUCKETS, bucket_of
from probekit.interp.run import Outcome
from tests.interp.worlds import run, value, world

_MIN, _MAX = -(1 << 63), (1 << 63) - 1


def test_record_is_laid_out_as_planned() -> None:
    outcome = run('BEGIN { trace((char)arg0); trace(pid); trace(execname); trace(probefunc); trace("ab"); }', -2)
    assert outcome == Outcome(
        fired=True,
        record=b"\xfe\0\0\0\x07\0\0\0" + b"bash".ljust(16, b"\0") + b"ab\0" + b"\0" * 5,
    )


def test_long_strings_are_cut_before_their_nul() -> None:
    w = world("BEGIN { trace(execname); }")
    w.builtins["execname"] = b"x" * 40
    assert w.run()[0].record == b"x" * 15 + b"\0"


def test_a_string_ends_at_its_first_nul() -> None:
    w = world('BEGIN /execname == "sh"/ { trace(execname); }')
    w.builtins["execname"] = b"sh\0garbage"
    assert w.run()[0].record == b"sh".ljust(16, b"\0")


def test_default_action_records_an_empty_payload() -> None:
    assert run("BEGIN") == Outcome(fired=True, record=b"")
    assert run("BEGIN { x = 1; }") == Outcome(fired=True, record=None)


def test_predicate_decides() -> None:
    assert run("BEGIN /arg0 == 2/ { trace(1); }", 1) == Outcome(fired=False)
    assert run("BEGIN /arg0 == 2/ { trace(1); }", 2).fired


@pytest.mark.parametrize("expr", ["1 / arg0", "1 % arg0", "1ul / arg0", "1ul % arg0", "arg1 ? 1 : 1 / arg0"])
def test_division_by_zero_aborts_the_clause(expr: str) -> None:
    w = world(f"BEGIN {{ x = 1; trace({expr}); y = 2; }}")
    (outcome,) = w.run()
    assert outcome.fired
    assert outcome.record is None
    assert outcome.fault is not None
    assert outcome.fault.kind is FaultKind.DIVZERO
    assert w.variables == {0: 1}


def test_a_fault_in_the_predicate_does_not_fire() -> None:
    outcome = run("BEGIN /1 \x2f arg0/ { trace(1); }")
    assert not outcome.fired
    assert outcome.fault is not None


@pytest.mark.parametrize(
    ("expr", "args", "expected"),
    [
        ("arg0 / arg1", (_MIN, -1), _MIN),
        ("arg0 % arg1", (_MIN, -1), 0),
        ("arg0 / arg1", (-7, 2), -3),
        ("arg0 % arg1", (-7, 2), -1),
        ("arg0 + 1", (_MAX,), _MIN),
        ("arg0 * arg0", (1 << 40,), 0),
        ("arg0 << arg1", (1, 65), 2),
        ("arg0 << arg1", (1, -1), _MIN),
        ("arg0 >> arg1", (_MIN, 63), -1),
        ("(uint64_t)arg0 >> 63", (_MIN,), 1),
        ("(uint64_t)arg0 / 2", (-2,), _MAX),
        ("-arg0", (_MIN,), _MIN),
        ("~arg0", (0,), -1),
        ("(arg0, arg1)", (1, 2), 2),
        ("arg0 ? arg1 : arg2", (0, 1, 2), 2),
    ],
)
def test_64_bit_arithmetic(expr: str, args: tuple[int, ...], expected: int) -> None:
    assert value(expr, *args) == expected


@pytest.mark.parametrize(
    ("expr", "args", "expected"),
    [
        ("(int)arg0 / (int)arg1", (-(1 << 31), -1), -(1 << 31)),
        ("(int)arg0 + 1", ((1 << 31) - 1,), -(1 << 31)),
        ("(int)arg0 << 31", (1,), -(1 << 31)),
        ("(uint8_t)arg0 + (uint8_t)arg0", (255,), 510),
        ("(uint32_t)arg0 > -1", (0,), 0),
        ("(char)arg0 < 0", (128,), 1),
        ("arg0 && arg1 || arg2", (1, 0, 3), 1),
        ("arg0 ^^ arg1", (2, 3), 0),
        ("!arg0", (0,), 1),
        ('"abc" < "abd"', (), 1),
        ('"\\377" > "a"', (), 1),
        ('"ab" < "abc"', (), 1),
        ('execname == "bash"', (), 1),
        ("probefunc != execname", (), 1),
    ],
)
def test_int_results(expr: str, args: tuple[int, ...], expected: int) -> None:
    assert value(expr, *args, size=4) == expected


def test_the_untaken_side_does_not_run() -> None:
    w = world("BEGIN { x = 0; arg0 && x++; arg0 || (x = 5); arg0 ? x++ : (x += 10); }")
    w.run()
    assert w.variables == {0: 15}


def test_variables_take_their_first_type() -> None:
    w = world("BEGIN { x = (char)1; x = arg0; y = x++; z = ++x; }", 127)
    w.run()
    assert [w.variables[v.index] for v in w.program.variables] == [-127, 127, -127]


def test_if_else() -> None:
    script = "BEGIN { if (arg0 == 1) x = 10; else if (arg0 == 2) { x = 20; y = 1; } else ; z = x; }"
    for arg, expected in ((1, {0: 10, 2: 10}), (2, {0: 20, 1: 1, 2: 20}), (3, {2: 0})):
        w = world(script, arg)
        w.run()
        assert w.variables == expected


def test_aggregations() -> None:
    w = world(
        "BEGIN { @[probefunc, execname, pid] = count(); @s = sum(arg0); @a = avg(arg0); @m = min(arg0);"
        " @n = max(arg0); @q = quantize(arg0); }",
        -3,
    )
    w.run()
    w.args = (5,) * 10
    w.run()
    tables = [dict(w.aggs.table(a.index)) for a in w.program.aggregations]
    assert tables[0] == {("sys_read", b"bash", 7): (2,)}
    assert tables[1:5] == [{(): (2,)}, {(): (2, 2)}, {(): (-3,)}, {(): (5,)}]
    buckets = [0] * BUCKETS
    buckets[bucket_of(-3)] += 1
    buckets[bucket_of(5)] += 1
    assert tables[5] == {(): tuple(buckets)}


def test_a_full_table_counts_drops() -> None:
    w = world("BEGIN { @[arg0] = count(); }")
    w.aggs.limit = 2
    for n in (1, 2, 3, 1):
        w.args = (n,) * 10
        w.run()
    assert dict(w.aggs.table(0)) == {(1,): (2,), (2,): (1,)}
    assert w.aggs.drops == 1


def test_sums_wrap() -> None:
    w = world("BEGIN { @ = sum(arg0); }", _MAX)
    w.run()
    w.run()
    assert dict(w.aggs.table(0)) == {(): (-2,)}


def _records(script: str, *args: int) -> list[bytes]:
    return [outcome.record for outcome in world(script, *args).run() if outcome.record is not None]


def test_conditional_actions_record_when_their_branch_runs() -> None:
    script = """BEGIN /arg9 == 0/
    {
        trace('a');
        if (arg0) { trace('b'); if (arg1) trace('c'); else if (arg2) trace('d'); trace('e'); }
        else if (arg3) trace('f');
        if (arg4) ; else trace('g');
        trace('h');
    }"""

    def shown(*args: int) -> str:
        return b"".join(record.replace(b"\0", b"") for record in _records(script, *args)).decode()

    assert shown(0, 0, 0, 0, 0) == "agh"
    assert shown(1, 0, 0, 0, 0) == "abegh"
    assert shown(1, 1, 1, 1, 1) == "abceh"
    assert shown(1, 0, 1, 1, 1) == "abdeh"
    assert shown(0, 1, 1, 1, 0) == "afgh"
    assert shown(0, 0, 0, 0, 0, 0, 0, 0, 0, 1) == ""


def test_a_fault_in_a_branch_ends_the_clause() -> None:
    script = "BEGIN { trace(1); if (arg0) trace(1 / arg1); else trace(2); trace(3); }"
    assert len(_records(script, 0, 0)) == 3
    assert len(_records(script, 1, 1)) == 3
    assert len(_records(script, 1, 0)) == 1


def test_many_conditional_actions() -> None:
    script = "BEGIN { " + "if (arg0) trace(1); " * 1500 + "}"
    assert len(_records(script, 1)) == 1500


def test_callers_are_no_text() -> None:
    """An address may have any byte in it, and all eight of the last one count."""
    one = world("fbt::: { stack(2); @[stack(3)] = count(); }")
    one.callers = (0xFFFFFFFF9E003F4D, 0xFFFFFFFF81000041)
    (outcome,) = one.run()
    shown = b"".join(addr.to_bytes(8, "little") for addr in one.callers)
    assert outcome.record == shown
    assert list(one.aggs.table(0)) == [(shown + bytes(8),)]
