"""Whole runs without a guest: order, exit, aggregations, speculation, ERROR, options."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probekit.buffers import actions as acts
from probekit.buffers.aggs import AggPlan
from probekit.buffers.formats import parse_format
from probekit.errors import ProbekitError
from probekit.ir import ops
from probekit.ir.build import compile_program
from probekit.session.options import Options
from probekit.session.run import Run

from .programs import aggregate, clause, printed, program, run

SUM = AggPlan(0, "a", "sum", ())


def say(text: str) -> acts.Printf:
    return acts.Printf(parse_format(text), ())


def end(field: int = 0) -> acts.Exit:
    return acts.Exit(field)


def test_begin_then_end_and_the_exit_status() -> None:
    out, _, trace = run(
        program(
            clause(0, "END", [say("end\n")]),
            clause(1, "BEGIN", [say("begin\n"), end()], [7]),
            clause(2, "BEGIN", [say("never: exit() has been called\n")]),
        )
    )
    assert out == "begin\nend\n\n"
    assert trace.status == 7


def test_exit_in_end_counts_too() -> None:
    assert run(program(clause(0, "BEGIN", [end()], [1]), clause(1, "END", [end()], [4])))[2].status == 4


def test_with_nothing_to_wait_for_it_ends() -> None:
    assert run(program(clause(0, "BEGIN", [say("x\n")])))[0] == "x\n\n"


def test_the_probe_line_and_its_header() -> None:
    out, _, _ = run(program(clause(0, "BEGIN", [acts.TraceAction(0), end(1)], [5, 0])), Options())
    assert out == (
        "CPU     ID                    FUNCTION:NAME\n  0      1                           :BEGIN                 5\n\n"
    )


def test_silent_actions_show_nothing() -> None:
    out, _, _ = run(program(clause(0, "BEGIN", [acts.Commit(0)], [0])), Options())
    assert out == "\n"


def test_a_printa_sees_what_was_aggregated_until_it_is_read() -> None:
    out, _, _ = run(
        program(
            clause(0, "BEGIN", [acts.Printa(None, (0,))], [], *aggregate(0, 5)),
            clause(1, "BEGIN", [end()], [0], *aggregate(0, 2)),
            clause(2, "END", [acts.Printa(parse_format("%@d\n"), (0,))], [], *aggregate(0, 3)),
            aggs=[SUM],
        )
    )
    assert out == "\n               10\n10\n\n"


def test_what_was_not_printed_is_printed_at_the_end() -> None:
    out, _, _ = run(program(clause(0, "BEGIN", [], [], *aggregate(0, 5)), aggs=[SUM]))
    assert out == "\n                5\n"


def test_normalize_clear_and_trunc() -> None:
    made = program(
        clause(0, "BEGIN", [acts.Normalize(0, 0), acts.Printa(parse_format("%@d "), (0,))], [5], *aggregate(0, 100)),
        clause(1, "BEGIN", [acts.Denormalize(0), acts.Printa(parse_format("%@d "), (0,))]),
        clause(2, "BEGIN", [acts.Clear(0), acts.Printa(parse_format("%@d "), (0,))]),
        clause(3, "BEGIN", [acts.Trunc(0), acts.Printa(parse_format("%@d "), (0,))]),
        aggs=[SUM],
    )
    assert run(made)[0] == "20 100 0 \n"


def test_a_fault_aborts_its_clause_fires_error_and_goes_on() -> None:
    divide = (ops.Int(1, 1), ops.Int(2, 0), ops.Bin(3, ops.BinOp.SDIV, 1, 2))
    seen = (ops.LoadArg(4, 1), ops.LoadArg(5, 4))
    error = clause(1, "ERROR", [acts.Printf(parse_format("%d %d\n"), (0, 1))], [0, 0], *seen)
    block = error.blocks[0]
    copied = tuple(ops.Emit(op.field, 4 + op.field) if isinstance(op, ops.Emit) else op for op in block.ops)
    error = replace(error, blocks=(replace(block, ops=copied),))
    out, messages, _ = run(
        program(
            clause(0, "BEGIN", [say("never\n")], [], *divide), error, clause(2, "BEGIN", [say("after\n"), end()], [0])
        )
    )
    assert out == "1 4\nafter\n\n"
    assert messages == "probekit: error in clause 1 for probe ID 1 (dtrace:::BEGIN): divide-by-zero at line 1\n"


def test_a_fault_in_error_is_counted() -> None:
    divide = (ops.Int(1, 1), ops.Int(2, 0), ops.Bin(3, ops.BinOp.SDIV, 1, 2))
    _, messages, _ = run(
        program(clause(0, "BEGIN", [say("x")], [], *divide), clause(1, "ERROR", [say("y")], [], *divide))
    )
    assert "1 error in ERROR probe enabling\n" in messages


def test_speculation() -> None:
    made = program(
        clause(0, "BEGIN", [acts.Speculate(0), say("kept\n")], [1]),
        clause(1, "BEGIN", [say("first\n")]),
        clause(2, "BEGIN", [acts.Commit(0)], [1]),
        clause(3, "BEGIN", [acts.Speculate(0), say("lost\n")], [1]),
    )
    with Run(None, made, Options(quiet=True)) as trace:
        assert trace._host.speculations.acquire() == 1
        assert printed(list(trace.events())) == "first\nkept\n"


def test_ticks_fire_until_exit() -> None:
    out, _, _ = run(
        program(
            clause(0, "tick-5ms", [say("tick\n"), end()], [0]),
            clause(1, "profile-1hz", [say("never")]),
        )
    )
    assert out == "tick\n\n"


def test_a_full_buffer_drops_or_ends_or_forgets() -> None:
    made = program(*(clause(i, "BEGIN", [acts.TraceAction(0)], [i]) for i in range(5)))
    out, messages, _ = run(made, Options(quiet=True, bufsize=64))
    assert (out, messages) == ("01\n", "probekit: 3 drops on CPU 0\n")
    assert run(made, Options(quiet=True, bufsize=64, bufpolicy="fill"))[:2] == ("01\n", "")
    assert run(made, Options(quiet=True, bufsize=64, bufpolicy="ring"))[:2] == ("34\n", "")


def test_a_record_that_never_fits_is_an_error() -> None:
    with pytest.raises(ProbekitError, match="Enabling exceeds size of buffer"):
        run(program(clause(0, "BEGIN", [acts.TraceAction(0)], [b"x"])), Options(bufsize=64))


def test_setopt_changes_what_comes_after() -> None:
    made = program(
        clause(0, "BEGIN", [acts.Setopt(0), say("a")], [b"quiet"]),
        clause(1, "BEGIN", [say("b\n"), acts.Setopt(0, 1)], [b"bufsize", b"4m"]),
    )
    out, messages, _ = run(made, Options())
    assert out.splitlines()[1:] == ["  0      1                           :BEGIN ab", ""]
    assert messages == (
        "probekit: script matched 1 probe\n"
        'probekit: couldn\'t set option "bufsize" to "4m": Option cannot be set while tracing is active\n'
    )


def test_system_and_freopen_act_in_order(tmp_path: Path, capfd: Any) -> None:
    file = tmp_path / "out"
    made = program(
        clause(0, "BEGIN", [say("one\n"), acts.Freopen(parse_format(str(file)), ()), say("two\n")]),
        clause(1, "BEGIN", [acts.System(parse_format("echo from the shell"), ())]),
        clause(2, "BEGIN", [acts.Freopen(parse_format(""), ()), say("three\n")]),
    )
    out, _, _ = run(made)
    assert out == "one\nthree\n\n"
    assert file.read_text() == "two\n"
    assert capfd.readouterr().out == "from the shell\n"


def test_raise_signals_this_process() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        run(program(clause(0, "BEGIN", [acts.Raise(0)], [signal.SIGUSR1])))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


@pytest.mark.parametrize("name", ["quiet", "flowindent"])
def test_flow_and_quiet_lines(name: str) -> None:
    options = Options(flowindent=name == "flowindent", quiet=name == "quiet")
    out, _, _ = run(program(clause(0, "BEGIN", [acts.TraceAction(0)], [3])), options)
    if name == "quiet":
        assert out == "3\n"
    else:
        assert out.splitlines()[:2] == [
            "CPU FUNCTION                                 ",
            "  0 | :BEGIN                                                  3",
        ]


def test_what_is_printed_in_bulk_is_what_each_prints() -> None:
    script = """
        BEGIN { printf("%s %5d|", probename, 1); }
        BEGIN { printf("%d%%\\n", 2); printf("%-6s|", "ab"); }
        BEGIN { trace(3); trace("x"); }
        BEGIN { printf("%x\\n", -4); }
        BEGIN { setopt("quiet", "no"); }
        BEGIN { printf("loud %d\\n", 5); }
        BEGIN { setopt("quiet", "yes"); }
        BEGIN { printf("%d\\n", 1 / (int)(execname == "nobody")); }
        tick-10ms { printf("%d\\n", 6); exit(7); }
        tick-10ms { printf("never\\n"); }
        END { printf("end\\n"); }
    """
    made = compile_program(script)
    texts: list[str] = []
    outputs = [run(made)[:2], run(made, sink=texts)[:2]]
    assert outputs[0] == outputs[1]
    assert "".join(texts) == "BEGIN     1|2%\nab    |fffffffc\n"
