"""Read stop packets such as ``T05thread:p01.02;watch:ffff...;`` into a :class:`StopReason`.

A *thread id* is hex, alone (``2``) or after its process (``p01.02``). The
signal says why: 5 is a breakpoint, a watchpoint or a finished step; 2 an
interrupt; QEMU uses others for a machine that shut down or failed.
"""

from __future__ import annotations

import re
from typing import Final

from probekit.errors import ProtocolError
from probekit.target.api import BreakKind, StopReason, Vcpu
from probekit.target.packets import hex_field

__all__ = ("SIGNAL_TRAP", "is_stop", "parse_stop", "thread_number")

SIGNAL_TRAP: Final = 5
"""The signal of a breakpoint, a watchpoint or a finished step."""
_THREAD: Final = re.compile(rb"(?:p[0-9a-fA-F]{1,8}\.)?([0-9a-fA-F]{1,8})")
_STOP: Final = re.compile(rb"[TS]([0-9a-fA-F]{2})(.*)", re.DOTALL)
_WATCH: Final[dict[bytes, BreakKind]] = {b"watch": "watch_write", b"rwatch": "watch_read", b"awatch": "watch_access"}


def thread_number(text: bytes) -> Vcpu:
    """Return the vCPU in a thread id, ``2`` or ``p01.02``. Raises :class:`ProtocolError`."""
    match = _THREAD.fullmatch(text)
    if match is None:
        raise ProtocolError("the stub sent a malformed thread id", reply=text)
    return int(match[1], 16)


def is_stop(packet: bytes) -> bool:
    """Tell whether a packet says that the machine stopped (and has not ended)."""
    return _STOP.fullmatch(packet) is not None


def parse_stop(packet: bytes) -> tuple[StopReason, bytes | None]:
    """Return the reason in a stop packet and its thread id as sent. A packet without one gives None, and vCPU 1.

    Raises :class:`ProtocolError` for any other packet.
    """
    raw = packet[:512].decode("latin-1")
    if packet[:1] in (b"W", b"X", b"N"):
        return StopReason("exited", 0, 0, raw), None
    match = _STOP.fullmatch(packet)
    if match is None:
        raise ProtocolError("the stub sent something that is not a stop packet", reply=packet)
    signal = int(match[1], 16)
    fields = dict(word.partition(b":")[::2] for word in match[2].split(b";") if word)
    thread = fields.get(b"thread")
    vcpu = 1 if thread is None else thread_number(thread)
    for name, kind in _WATCH.items():
        if name in fields:
            addr = hex_field(fields[name])
            return StopReason("watch", signal, vcpu, raw, watch_addr=addr, watch_kind=kind), thread
    return StopReason("breakpoint" if signal == SIGNAL_TRAP else "interrupt", signal, vcpu, raw), thread
