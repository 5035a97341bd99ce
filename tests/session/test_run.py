"""Whole runs without a guest: their order, their end, and what they do on the host."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from probekit.buffers import actions as acts
from probekit.buffers.aggs import AggPlan
from probekit.buffers.formats import parse_format
from probekit.session.options import Options

from .programs import clause, program, run

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


def test_ticks_fire_until_exit() -> None:
    out, _, _ = run(
        program(
            clause(0, "tick-5ms", [say("tick\n"), end()], [0]),
            clause(1, "profile-1hz", [say("never")]),
        )
    )
    assert out == "tick\n\n"


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
