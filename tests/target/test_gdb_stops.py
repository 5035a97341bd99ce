"""gdb's record of a stop becomes the reason of the contract, with the vCPU that gdb's thread stands for."""

from __future__ import annotations

import pytest
from scripted_gdb import ScriptedGdb

from probekit.target.gdb_breakpoints import GdbBreakpoints
from probekit.target.gdb_stops import stop_reason
from probekit.target.gdb_threads import GdbThreads


@pytest.mark.parametrize(
    ("stop", "kind", "signal"),
    [
        ({"reason": "breakpoint-hit"}, "breakpoint", 5),
        ({"reason": "end-stepping-range"}, "breakpoint", 5),
        ({"reason": "signal-received", "signal-name": "SIGINT"}, "interrupt", 2),
        ({"reason": "signal-received", "signal-name": "something new"}, "interrupt", 0),
        ({"reason": "watchpoint-trigger"}, "watch", 5),
        ({"reason": "exited-normally"}, "exited", 0),
        ({}, "interrupt", 2),
    ],
)
def test_each_record_is_a_reason_and_its_text_is_bounded(stop: dict[str, str], kind: str, signal: int) -> None:
    gdb = ScriptedGdb({})
    reason = stop_reason(stop | {"frame": "x" * 10_000}, GdbThreads(gdb, "gdb:x"), GdbBreakpoints(gdb))
    assert (reason.kind, reason.signal) == (kind, signal)
    assert len(reason.raw) <= 512 and reason.watch_addr is None
