"""What clauses cost is measured in the guest, shown, and held against ``maxoverhead``."""

from __future__ import annotations

import pytest

from probekit.consumer import events as model
from probekit.session.options import Options
from tests.live.inprocess import Outcome, trace
from tests.live.tool import Probekit
from tests.live.work import getppid_on_each_cpu, lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

CALLS = 20_000
MINE = '/execname == "syscalls"/'
LOOP = "i=0; while [ $i -lt 300 ]; do syscalls 100000 1 >/dev/null; i=$((i+1)); done"


def costs(done: Outcome) -> model.Costs:
    (found,) = [event for event in done.events if isinstance(event, model.Costs)]
    return found


def test_every_clause_has_its_figure(guest: Guest, homes: object) -> None:
    script = f"""
        fbt::sys_getppid:entry {MINE} {{ @ = quantize(arg0); }}
        fbt::sys_getppid:entry {MINE} {{ @s[strjoin(execname, execname), pid] = quantize(arg0); }}
        fbt::sys_getppid:return {{ @n = count(); }}
    """
    found = costs(done := trace(guest, script, getppid_on_each_cpu(guest, CALLS), measure=True))
    assert done.trouble() == [] and found.limit is None and 0 < found.percent < 100
    counted = done.table("n")[()]
    assert counted >= 2 * CALLS
    assert [(c.clause, c.firings) for c in found.clauses[:2]] == [(0, found.entries), (1, found.entries)]
    assert [c.firings for c in found.clauses[2:]] == [counted], "it is an increment, and counts itself"
    short, deep, inline = (cost.ns / cost.firings for cost in found.clauses)
    assert 0 < inline < short < deep < 1_000_000
    assert 0 < found.entries_ns / found.entries < 100_000


def test_without_v_nothing_is_measured(guest: Guest, homes: object) -> None:
    done = trace(guest, f"fbt::sys_getppid:entry {MINE} {{ @ = count(); }}", lines(guest, "syscalls 100 1"))
    assert [event for event in done.events if isinstance(event, model.Costs)] == []


@pytest.mark.parametrize("json", [False, True])
def test_what_costs_too_much_is_ended_and_says_so(guest: Guest, probekit: Probekit, json: bool) -> None:
    work = guest.spawn(LOOP)
    try:
        clause = f"fbt::sys_getppid:entry {MINE} {{ @[stack()] = count(); }}"
        how = ("--json",) if json else ("-q", "-v")
        done = probekit.run("-x", "maxoverhead=2%", *how, "-n", clause, "-n", 'END { printf("over\\n"); }')
    finally:
        work.stop("KILL")
        guest.exec("killall syscalls")
    assert done.status == 1, done.stderr
    if json:
        (said,) = done.of("costs")
        assert said["percent"] > said["limit"] == 2 and said["clauses"][0]["firings"] > 1000
        assert said["message"].startswith("processing aborted: probes took ")
        return
    assert "maxoverhead=2\n" in done.stderr and "probekit: clause 1: " in done.stderr and " ns each" in done.stderr
    assert "over" in done.stdout and "entry_SYSCALL_64" in done.stdout, "what was found until then is shown"


def test_what_costs_little_goes_on(guest: Guest, homes: object) -> None:
    options = Options(maxoverhead=90)
    script = f"fbt::sys_getppid:entry {MINE} {{ @ = sum(arg0 * 0 + 1); }}"
    done = trace(guest, script, lines(guest, "syscalls 1000 1; sleep 2.5; syscalls 1000 1"), options=options)
    assert done.table() == {(): 2000} and costs(done).limit is None and done.status == 0


def test_the_stop_engine_measures_nothing(guest: Guest, probekit: Probekit) -> None:
    done = probekit.run("--engine", "stop", "-x", "maxoverhead=5", "-n", "fbt::sys_getppid:entry { }")
    assert done.status == 1 and "maxoverhead needs the guest engine" in done.paragraph()
