"""Breakpoints through gdb: each is set once, cleared by gdb's own number, and a watchpoint's stop says where."""

from __future__ import annotations

from itertools import count

import pytest
from scripted_gdb import ScriptedGdb

from probekit.errors import TargetError, UnsupportedError
from probekit.target.api import BreakKind
from probekit.target.gdb_breakpoints import GdbBreakpoints


def _gdb() -> ScriptedGdb:
    numbers = count(1)
    gdb = ScriptedGdb()
    gdb.answers["-break-insert"] = lambda _: {"bkpt": {"number": str(next(numbers))}}
    for flag, member in (("", "wpt"), ("-r ", "hw-rwpt"), ("-a ", "hw-awpt")):
        gdb.answers[f"-break-watch {flag}"] = lambda _, member=member: {member: {"number": str(next(numbers))}}
    return gdb


@pytest.mark.parametrize(
    ("kind", "size", "command"),
    [
        ("software", 1, "-break-insert *0x1000"),
        ("hardware", 1, "-break-insert -h *0x1000"),
        ("watch_write", 8, '-break-watch "*(unsigned long *) 0x1000"'),
        ("watch_read", 4, '-break-watch -r "*(unsigned int *) 0x1000"'),
        ("watch_access", 1, '-break-watch -a "*(unsigned char *) 0x1000"'),
    ],
)
def test_each_kind_is_set_by_its_command_and_only_once(kind: BreakKind, size: int, command: str) -> None:
    gdb = _gdb()
    table = GdbBreakpoints(gdb)
    table.set(0x1000, kind, size)
    table.set(0x1000, kind, size)
    assert gdb.sent == [command]
    table.clear(0x1000, kind, size)
    table.clear(0x1000, kind, size)
    assert gdb.sent[1:] == ["-break-delete 1"]


def test_a_size_that_no_c_type_has_is_not_supported() -> None:
    gdb = _gdb()
    with pytest.raises(UnsupportedError, match="3 bytes"):
        GdbBreakpoints(gdb).set(0x1000, "watch_write", 3)
    assert gdb.sent == []


def test_a_breakpoint_that_gdb_does_not_delete_stays_listed() -> None:
    gdb = _gdb()
    table = GdbBreakpoints(gdb)
    table.set(0x1000, "software", 1)
    gdb.answers["-break-delete"] = "no"
    with pytest.raises(TargetError):
        table.clear(0x1000, "software", 1)
    del gdb.answers["-break-delete"]
    table.clear_all()
    assert gdb.sent[-1] == "-break-delete 1"


def test_clearing_all_deletes_every_number() -> None:
    gdb = _gdb()
    table = GdbBreakpoints(gdb)
    for addr in (0x1000, 0x2000, 0x3000):
        table.set(addr, "software", 1)
    table.clear_all()
    assert gdb.sent[3:] == ["-break-delete 1", "-break-delete 2", "-break-delete 3"]


@pytest.mark.parametrize(
    ("kind", "reason", "member"),
    [
        ("watch_write", "watchpoint-trigger", "wpt"),
        ("watch_read", "read-watchpoint-trigger", "hw-rwpt"),
        ("watch_access", "access-watchpoint-trigger", "hw-awpt"),
    ],
)
def test_the_stop_of_a_watchpoint_names_its_address(kind: BreakKind, reason: str, member: str) -> None:
    table = GdbBreakpoints(_gdb())
    table.set(0x1000, "software", 1)
    table.set(0x2000, kind, 8)
    assert table.is_watch(reason) and not table.is_watch("breakpoint-hit")
    assert table.watched_address({"reason": reason, member: {"number": "2"}}) == 0x2000
    assert table.watched_address({"reason": reason, member: {"number": "9"}}) is None
    assert table.watched_address({"reason": reason}) is None
