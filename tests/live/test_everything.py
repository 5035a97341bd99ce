"""Every function at once, under load: the guest lives, entries and returns balance, all is restored."""

from __future__ import annotations

import pytest

from tests.live.inprocess import trace
from tests.live.work import lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

LEAST_PROBES = 30_000
# Calls in it end the task: noreturn as far as it is concerned, so such a call has no return.
ENDS_TASKS = "x64_sys_call"


def _tasks(guest: Guest) -> int:
    return int(guest.check("ls -d /proc/[0-9]*/task/* | wc -l"))


def _calls_in_flight(guest: Guest, before: int) -> int:
    """A function can be on the stack of every task, and of the idle task and an interrupt of every CPU."""
    return max(before, _tasks(guest)) + 2 * guest.smp


def test_every_entry(guest: Guest, homes: object) -> None:
    done = trace(guest, "fbt:::entry { @[probefunc] = count(); }", lines(guest, "mixed 2 4"))
    assert done.trouble() == []
    assert done.stats["sites"] >= LEAST_PROBES
    table = done.table()
    assert len(table) > 1000 and sum(table.values()) > 100_000
    for name in ("vfs_read", "do_exit", "schedule", "pipe_write", "__x64_sys_execve", "do_futex"):
        assert table[(name,)] > 0, name


def test_entries_and_returns_balance(guest: Guest, homes: object) -> None:
    before = _tasks(guest)
    script = """
        fbt:::entry { @entries[probefunc] = count(); }
        fbt:::return { @returns[probefunc] = count(); }
    """
    done = trace(guest, script, lines(guest, "mixed 4 4"))
    assert done.trouble() == []
    assert done.stats["sites"] >= 2 * LEAST_PROBES
    entries, returns = done.table("entries"), done.table("returns")
    in_flight = _calls_in_flight(guest, before)
    # What cannot be seen leaving is said; everything else has to balance.
    unseen = {r.probe.name.function for r in done.refused}
    seen = [key for key in entries.keys() | returns.keys() if key[0] not in unseen]
    assert len(seen) > 1000
    ended = entries[("do_exit",)]
    wrong = {}
    for key in seen:
        surplus = entries.get(key, 0) - returns.get(key, 0)
        most = in_flight + (ended if key[0] == ENDS_TASKS else 0)
        if not -in_flight <= surplus <= most:
            wrong[key[0]] = (entries.get(key, 0), returns.get(key, 0))
    assert wrong == {}
    # And nearly all of them to the last call.
    exact = sum(entries.get(key, 0) == returns.get(key, 0) for key in seen)
    assert exact > len(seen) * 0.95


def test_a_line_for_every_firing_of_a_busy_guest_never_hurts_it(guest: Guest, homes: object) -> None:
    # Far more records than fit: dropped, counted, said.
    done = trace(guest, "fbt:::entry { trace(1); }", lines(guest, "mixed 1 2"))
    fired = len(done.fired())
    drops = [event for event in done.trouble() if getattr(event, "kind", "") == "principal"]
    assert fired > 1000
    assert done.trouble() == drops
