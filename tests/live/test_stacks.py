"""``stack()`` at every kind of probe, by the kernel's own unwinder: no frame missing, none too many."""

from __future__ import annotations

import pytest

from tests.guest_fixtures import SINGLE, only
from tests.live.inprocess import trace
from tests.live.work import lines
from vm.guest import Guest

pytestmark = [pytest.mark.guest, only(*SINGLE)]  # a tracepoint is among the probes

READS = 40
WORK = f"dd if=/dev/zero of=/dev/null bs=4096 count={READS} 2>/dev/null"
ENTRY = "entry_SYSCALL_64_after_hwframe"


def names(stack: str) -> list[str]:
    """The functions, innermost first."""
    return [frame.rpartition("`")[2].partition("+")[0] for frame in str(stack).split("\n") if frame]


def test_at_every_kind_of_probe(guest: Guest, homes: object) -> None:
    """Each instruction of a function that dd reads by, before, between and behind its pushes and calls."""
    script = """
        self int in;
        fbt::ksys_read:entry /execname == "dd"/ { self->in = 1; }
        fbt::vfs_read:entry /self->in/ { @entry[stack()] = count(); }
        fbt::vfs_read:return /self->in/ { @exit[stack()] = count(); }
        kinst::vfs_read: /self->in/ { @insn[probename, stack()] = count(); @first[probename, caller] = count(); }
        fbt::ksys_read:return { self->in = 0; }
        tracepoint:raw_syscalls::sys_enter /execname == "dd" && arg1 == 0/ { @point[stack()] = count(); }
    """
    done = trace(guest, script, lines(guest, WORK))
    assert done.trouble() == []
    (at_entry,) = {tuple(names(key[0])) for key in done.table("entry")}
    assert at_entry[0] == "ksys_read" and at_entry[-1] == ENTRY and "do_syscall_64" in at_entry
    assert {tuple(names(key[0])) for key in done.table("exit")} == {at_entry}
    inside = {key[0]: names(key[1]) for key in done.table("insn")}
    assert len(inside) > 30, "most instructions of vfs_read are executed"
    wrong = {offset: stack for offset, stack in inside.items() if tuple(stack) != at_entry}
    assert wrong == {}
    assert len({key[1] for key in done.table("first")}) == 1, "caller is where the function returns, all through it"
    assert sum(done.table("entry").values()) >= READS
    for stack in (names(key[0]) for key in done.table("point")):
        assert stack[-1] == ENTRY and "do_syscall_64" in stack and "vfs_read" not in stack
