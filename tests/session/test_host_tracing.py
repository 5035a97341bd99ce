"""The probes that fire on the host: site numbers, timers, globals, losses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from probekit.consumer.events import ProbeIdentity
from probekit.enabling.ecb import match_program
from probekit.enabling.host.firing import HostWorld
from probekit.ir.build import compile_program
from probekit.probe.names import ProbeName
from probekit.providers.registry import make_registry
from probekit.session import host_tracing as module
from probekit.session.host_tracing import HostTracing
from probekit.session.options import Options
from probekit.session.run_state import RunState

SECOND = 1_000_000_000


class _Clock:
    def __init__(self) -> None:
        self.now = 5 * SECOND

    def monotonic_ns(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(module.time, "monotonic_ns", clock.monotonic_ns)
    return clock


def _tracing(script: str, options: Options | None = None) -> HostTracing:
    program = compile_program(script)
    matching = match_program(program, make_registry(None))
    host = HostTracing(program, matching, options or Options(), RunState(), attachment=None, in_guest=lambda: None)
    host.name_sites({})
    return host


def test_sites_of_the_host_come_after_those_of_the_guest() -> None:
    program = compile_program("BEGIN { } tick-1s { }")
    matching = match_program(program, make_registry(None))
    host = HostTracing(program, matching, Options(), RunState(), attachment=None, in_guest=lambda: None)
    of_guest = ProbeIdentity(77, ProbeName("fbt", "vmlinux", "f", "entry"))
    named = host.name_sites({0: of_guest})
    assert named[0] == of_guest and host.sites == {1, 2}
    assert {named[site].name.name for site in host.sites} == {"BEGIN", "tick-1s"}


def test_a_timer_is_due_after_its_period(clock: _Clock) -> None:
    host = _tracing("tick-1s { trace(1); } tick-3s { trace(2); }")
    assert not host.timed and host.due_in() is None
    host.start_timers()
    assert host.timed and host.due_in() == 1.0
    host.fire_due()
    assert host.probes.take() == []
    clock.now += SECOND
    host.fire_due()
    assert [record.clause for _, record in host.probes.take()] == [0]
    assert host.due_in() == 1.0


def _missed(host: HostTracing) -> dict[str, int]:
    return {probe.name.name: count for probe, count in host.missed()}


def test_periods_that_were_missed_altogether_are_left_out_and_counted(clock: _Clock) -> None:
    host = _tracing("tick-1s { trace(1); } tick-2s { }")
    host.start_timers()
    assert _missed(host) == {"tick-1s": 0, "tick-2s": 0}
    clock.now += 3 * SECOND + SECOND // 2
    assert host.due_in() == -2.5
    host.fire_due()
    assert [record.clause for _, record in host.probes.take()] == [0, 1]
    assert host.due_in() == 0.5  # the rhythm is kept
    assert _missed(host) == {"tick-1s": 2, "tick-2s": 0}
    clock.now += 2 * SECOND
    host.fire_due()
    assert _missed(host) == {"tick-1s": 3, "tick-2s": 0}


def test_what_would_have_come_after_exit_was_not_missed(clock: _Clock) -> None:
    host = _tracing("tick-1s { exit(0); }")
    host.start_timers()
    clock.now += 9 * SECOND
    host.fire_due()
    assert _missed(host) == {"tick-1s": 0}
    host.stop_timers()
    assert _missed(host) == {"tick-1s": 0}


def test_whole_periods_before_the_end_are_missed(clock: _Clock) -> None:
    host = _tracing("tick-1s { } tick-4s { }")
    host.start_timers()
    clock.now += 3 * SECOND + SECOND // 2
    host.stop_timers()  # it was due three times, and the last one is late by less than a period
    assert _missed(host) == {"tick-1s": 2, "tick-4s": 0}


def test_a_sample_that_is_missed_is_missed_on_every_cpu(clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probekit.session.sampling.samples", lambda _: ((cpu, HostWorld()) for cpu in range(3)))
    program = compile_program("profile-100ms { @ = count(); }")
    attachment: Any = SimpleNamespace(safe_loads=SimpleNamespace(read=None, invalidate=lambda: None))
    host = HostTracing(
        program,
        match_program(program, make_registry(None)),
        Options(),
        RunState(),
        attachment=attachment,
        in_guest=lambda: None,
    )
    host.name_sites({})
    host.start_timers()
    clock.now += SECOND
    host.fire_due()
    assert dict(host.aggregations.table(0)) == {(): (3,)} and _missed(host) == {"profile-100ms": 3 * 9}
    clock.now += SECOND // 2
    host.stop_timers()
    assert _missed(host) == {"profile-100ms": 3 * (9 + 4)}


def test_begin_sets_globals_of_the_host() -> None:
    host = _tracing("BEGIN { x = 7; y = x + 1; }")
    host.fire("begin")
    assert sorted(host.globals_.values.values()) == [7, 8]
    host.fire("end")  # there is none


def test_what_is_lost_is_told_by_kind() -> None:
    host = _tracing("BEGIN { trace(1); } BEGIN { trace(2); } BEGIN { @a[1] = count(); }", Options(bufsize=40))
    host.fire("begin")
    losses = {kind: total for kind, _, total in host.losses()}
    assert losses["principal"] == 1
    assert {kind for kind, total in losses.items() if total} == {"principal"}


def test_keys_that_do_not_fit_into_aggsize_are_lost() -> None:
    script = " ".join(f"BEGIN {{ @[{number}] = count(); }}" for number in range(20))
    host = _tracing(script, Options(aggsize=256))
    host.fire("begin")
    losses = {kind: total for kind, _, total in host.losses()}
    kept = len(host.aggregations.table(0))
    assert 0 < kept < 20 and losses["aggregation"] == 20 - kept
