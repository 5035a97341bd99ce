"""Read why the machine stopped from gdb's ``*stopped`` records (GDB manual, "GDB/MI Async Records")."""

from __future__ import annotations

from typing import Final

from probekit.target.api import StopReason
from probekit.target.gdb_breakpoints import GdbBreakpoints
from probekit.target.gdb_process import Record
from probekit.target.gdb_threads import GdbThreads

__all__ = ("stop_reason",)

_SIGNALS: Final = {"SIGTRAP": 5, "SIGINT": 2, "SIGQUIT": 3, "SIGABRT": 6, "0": 2}
_RAW_CHARACTERS: Final = 512


def stop_reason(stop: Record, threads: GdbThreads, breakpoints: GdbBreakpoints) -> StopReason:
    """Return why the machine stopped. ``stop``: the record's fields; empty for a stop that gdb did not explain."""
    why = str(stop.get("reason", ""))
    raw = str(stop)[:_RAW_CHARACTERS]
    if why.startswith("exited"):
        return StopReason("exited", 0, 0, raw)
    vcpu = threads.vcpu_of(str(stop.get("thread-id", "")))
    if breakpoints.is_watch(why):
        return StopReason("watch", 5, vcpu, raw, watch_addr=breakpoints.watched_address(stop))
    signal = 5
    if why == "signal-received":
        signal = _SIGNALS.get(str(stop.get("signal-name", "")), 0)
    elif not why:
        signal = 2
    return StopReason("breakpoint" if signal == 5 else "interrupt", signal, vcpu, raw)
