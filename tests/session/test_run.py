"""Whole runs without a guest: their order, their end, and what they do on the host."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.buffers import actions as acts
from probekit.buffers.aggs import AggPlan
from probekit.buffers.formats import parse_format
from probekit.consumer import events as model
from probekit.enabling.sites import RefusedProbe
from probekit.errors import Cancelled, GuestError, ProbekitError
from probekit.probe.names import ProbeDescription
from probekit.providers.registry import make_registry
from probekit.session.checks import NoMatchError
from probekit.session.options import Options
from probekit.session.run import Run

from .programs import clause, printed, program, run

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


class _Guest:
    """The guest's part of a run, which notes what is asked of it."""

    def __init__(
        self, log: list[str], *, fails: Exception | None = None, refused: tuple[RefusedProbe, ...] = ()
    ) -> None:
        self.log = log
        self.fails = fails
        self.refused = refused
        self.live = False
        self.stats: dict[str, float] = {}
        self.globals_ = self.costs = self.lost = None
        self.attachment = SimpleNamespace(
            life=SimpleNamespace(check=lambda: False), target=SimpleNamespace(paused=False)
        )

    def find(self, matching: object) -> dict[int, model.ProbeIdentity]:
        self.log.append("find")
        return {}

    def enable(self, *args: object) -> None:
        self.log.append("enable")
        if self.fails is not None:
            raise self.fails

    def disable(self, keep: object, *, silence: bool) -> tuple[None, list[str]]:
        self.log.append("disable")
        return None, []

    def too_costly(self) -> bool:
        return False


def _with_guest(
    *clauses: Any, fails: Exception | None = None, refused: tuple[RefusedProbe, ...] = (), **options: Any
) -> tuple[list[str], list[model.Event], ProbekitError | None]:
    """Run a program with a guest: what was done in order, the events, and the error that has ended it."""
    log: list[str] = []
    seen: list[model.Event] = []
    guest: Any = _Guest(log, fails=fails, refused=refused)
    with Run(None, program(*clauses), Options(**options), started=lambda: log.append("started")) as trace:
        trace._guest = trace._restoring._guest = guest
        try:
            for event in trace.events():
                seen.append(event)
                log.append(printed([event]) or type(event).__name__)
        except ProbekitError as error:
            return log, seen, error
    return log, seen, None


def test_nobody_sees_anything_before_the_sites_are_live() -> None:
    log, _, error = _with_guest(clause(0, "BEGIN", [say("go")]), clause(1, "tick-5ms", [say("tick"), end()], [0]))
    assert error is None
    assert log[:6] == ["find", "enable", "Attached", "go", "started", "disable"] and "tick" in log


@pytest.mark.parametrize("policy", ["switch", "fill", "ring"])
def test_begin_is_shown_when_the_sites_cannot_be_enabled(policy: str) -> None:
    fails = GuestError("no room")
    log, _, error = _with_guest(
        clause(0, "BEGIN", [say("go")]), clause(1, "END", [say("never")]), fails=fails, bufpolicy=policy
    )
    assert log == ["find", "enable", "Attached", "go", "disable", "disable"] and error is fails


def test_begin_and_end_are_shown_when_a_signal_ends_the_enabling() -> None:
    clauses = clause(0, "BEGIN", [say("go")]), clause(1, "END", [say("end")])
    log, _, error = _with_guest(*clauses, fails=Cancelled("stopped"))
    assert [each for each in log if each != "Stats"] == [
        *("find", "enable", "Attached", "go", "Message", "disable", "end", "disable")
    ]
    assert error is None


def test_after_exit_in_begin_nothing_is_enabled() -> None:
    log, _, error = _with_guest(clause(0, "BEGIN", [say("go"), end()], [3]), clause(1, "END", [say("end")]))
    assert [each for each in log if each not in ("ExitRequested", "Stats")] == [
        *("find", "Attached", "started", "disable", "go", "end", "disable")
    ]
    assert error is None


def _refused(name: str) -> tuple[RefusedProbe, ...]:
    probes = make_registry(None).match(ProbeDescription.parse(name))
    return tuple(RefusedProbe(probe, 0, "its place is taken", False) for probe in probes)


def test_a_probe_that_cannot_be_enabled_is_an_error_before_anything_is_done() -> None:
    clauses = (clause(0, "BEGIN", [say("go")]), clause(1, "tick-1s"))
    log, _, error = _with_guest(*clauses, refused=_refused("tick-1s"))
    assert log == ["find", "disable", "disable"]
    assert isinstance(error, NoMatchError) and error.clause == 1 and error.message.endswith(": its place is taken")


def test_with_zdefs_it_is_a_message() -> None:
    clauses = (clause(0, "tick-1s"), clause(1, "tick-5ms", [end()], [0]))
    _, seen, error = _with_guest(*clauses, refused=_refused("tick-1s"), zdefs=True)
    assert error is None and seen[0] == model.Attached("script", 1, refused=1)
    assert isinstance(seen[1], model.Message) and seen[1].text.endswith(": its place is taken")
