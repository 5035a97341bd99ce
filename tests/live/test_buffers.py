"""Buffer policies, and speculation, with both CPUs busy."""

from __future__ import annotations

import pytest

from probekit.buffers.layout import Policy
from probekit.consumer import events as model
from probekit.session.options import Options
from tests.guest_fixtures import K61, only
from tests.live.inprocess import Outcome, trace
from tests.live.work import getppid_on_each_cpu, lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

MINE = '/execname == "syscalls"/'
NUMBERED = f"fbt::sys_getppid:entry {MINE} {{ self->n++; trace(cpu); trace(self->n); }}"


def by_cpu(done: Outcome) -> dict[int, list[int]]:
    """What was traced, in order, by CPU."""
    found: dict[int, list[int]] = {}
    for values in done.traced():
        if len(values) == 2:
            found.setdefault(int(values[0]), []).append(int(values[1]))
    return found


def test_fill_ends_tracing_and_keeps_what_came_first(guest: Guest, homes: object) -> None:
    options = Options(bufpolicy="fill", bufsize=16384)
    done = trace(
        guest, f"{NUMBERED} END {{ trace(1); }}", getppid_on_each_cpu(guest, 2000), options=options, tick=False
    )
    found = by_cpu(done)
    assert found and all(seen == list(range(1, len(seen) + 1)) for seen in found.values())
    assert max(map(len, found.values())) == 16384 // 40
    assert done.trouble() == [] and done.traced()[-1] == (1,)


def test_ring_keeps_what_came_last(guest: Guest, homes: object) -> None:
    options = Options(bufpolicy="ring", bufsize=16384)
    done = trace(
        guest, f"{NUMBERED} tick-10ms {{ ticks++; }}", getppid_on_each_cpu(guest, 20_000), options=options, tick=False
    )
    found = by_cpu(done)
    assert set(found) == {0, 1} and done.trouble() == []
    for seen in found.values():
        assert seen == list(range(20_001 - len(seen), 20_001)) and len(seen) >= 16384 // 40 - 1


@only(K61)
@pytest.mark.parametrize("ram", [None, "none"], ids=["live", "in stops"])
def test_records_of_both_cpus_are_in_order_of_time(guest: Guest, homes: object, ram: str | None) -> None:
    """Both CPUs record at the same time; their rings are read one after the other, or while the guest stands still."""
    calls = 20_000 if ram is None else 2_000
    done = trace(guest, NUMBERED, getppid_on_each_cpu(guest, calls), ram=ram)
    assert done.trouble() == []
    times = [fired.timestamp for fired in done.fired()]
    assert len(times) == 2 * calls and times == sorted(times)
    assert by_cpu(done) == {cpu: list(range(1, calls + 1)) for cpu in (0, 1)}


@only(K61)
@pytest.mark.parametrize("policy", ["switch", "ring"])
def test_exit_on_the_host_shows_what_was_recorded_before(guest: Guest, homes: object, policy: Policy) -> None:
    """Records that were not read yet when a tick calls exit(): with a long interval, or read at the end only."""
    options = Options(bufpolicy=policy, switchrate_ns=3_000_000_000)
    script = f"{NUMBERED} tick-1s /done++ > 1/ {{ exit(0); }}"
    done = trace(guest, script, lines(guest, "syscalls 50 0; sleep 4"), options=options, tick=False)
    assert by_cpu(done) == {0: list(range(1, 51))} and done.trouble() == [] and done.status == 0


def test_switch_loses_nothing_that_it_does_not_count(guest: Guest, homes: object) -> None:
    options = Options(bufsize=65536, switchrate_ns=300_000_000)
    done = trace(guest, NUMBERED, getppid_on_each_cpu(guest, 30_000), options=options)
    lost = sum(e.count for e in done.trouble() if isinstance(e, model.Drop) and e.kind == "principal")
    assert len(done.traced()) + lost == 60_000 and lost > 0
    assert all(seen == sorted(seen) for seen in by_cpu(done).values())


def test_speculation(guest: Guest, homes: object) -> None:
    """What was speculated in a call is shown when the call turns out to be interesting, and never otherwise."""
    script = f"""
        fbt::vfs_read:entry /execname == "dd"/ {{ self->s = speculation(); self->n = arg2; }}
        fbt::vfs_read:entry /self->s/ {{ speculate(self->s); printf("read %d", arg2); }}
        fbt::vfs_read:return /self->s/ {{ speculate(self->s); printf("got %d", arg1); }}
        fbt::vfs_read:return /self->s && self->n == 7/ {{ commit(self->s); self->s = 0; }}
        fbt::vfs_read:return /self->s/ {{ discard(self->s); self->s = 0; }}
        fbt::sys_getppid:entry {MINE} {{ exit(0); }}
    """
    work = (
        "for n in 1 2 3; do dd if=/dev/zero of=/dev/null bs=5 count=9; dd if=/dev/zero of=/dev/null bs=7 count=2; done"
    )
    done = trace(
        guest, script, lines(guest, f"({work}) 2>/dev/null; sleep 0.3; syscalls 1 0"), options=Options(nspec=128)
    )
    assert [text for text in done.texts() if text] == ["read 7", "got 7"] * 6
    assert done.trouble() == []


def test_one_speculation_is_free_again_after_each_commit(guest: Guest, homes: object) -> None:
    """A program that stays on its CPU, with one speculation: each of its failing calls in a row is shown."""
    script = """
        fbt::do_sys_openat2:entry /execname == "cat"/ { self->s = speculation(); }
        fbt::do_sys_openat2:entry /self->s/ { speculate(self->s); printf("%s", copyinstr(arg1)); }
        fbt::do_sys_openat2:return /self->s && arg1 >> 63/ { commit(self->s); self->s = 0; }
        fbt::do_sys_openat2:return /self->s/ { discard(self->s); self->s = 0; }
    """
    names = [f"/nosuch/{n}" for n in range(40)]
    done = trace(guest, script, lines(guest, f"taskset 1 cat {' '.join(names)} 2>/dev/null; true"))
    assert [text for text in done.texts() if text] == names
    assert done.trouble() == []


def test_speculations_that_there_are_none_of(guest: Guest, homes: object) -> None:
    script = f"""
        fbt::sys_getppid:entry {MINE} {{ this->s = speculation(); @[this->s > 0] = count(); }}
        fbt::sys_getppid:entry {MINE} {{ speculate(1); trace("a long enough text to fill the speculation soon"); }}
        END {{ commit(1); }}
    """
    done = trace(guest, script, lines(guest, "syscalls 100 0"), options=Options(nspec=2, specsize=1000))
    assert done.table() == {(1,): 2, (0,): 98}
    kinds = {e.kind: e.total for e in done.trouble() if isinstance(e, model.Drop)}
    shown = len(done.traced())
    assert kinds == {"specunavail": 98, "spec": 100 - shown} and 0 < shown < 20
