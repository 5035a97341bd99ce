"""Ask a stub questions whose answer takes several packets: its vCPU list, and the monitor's output."""

from __future__ import annotations

import re
from typing import Final

from probekit.errors import ProtocolError, TargetError, UnsupportedError
from probekit.target.api import Vcpu
from probekit.target.packet_link import PacketLink
from probekit.target.packets import from_hex, to_hex
from probekit.target.stop_packets import thread_number

__all__ = ("is_error", "list_vcpus", "printable_reply", "run_monitor")

_MAX_MONITOR: Final = 16 << 20
_MAX_VCPUS: Final = 4096
_ERROR: Final = re.compile(rb"E[0-9a-fA-F]{2}|E\..*", re.DOTALL)


def is_error(reply: bytes) -> bool:
    """Tell whether a reply is an error: ``E14`` or ``E.text``."""
    return _ERROR.fullmatch(reply) is not None


def printable_reply(reply: bytes) -> str:
    """Return a stub's reply, cut short and safe to print."""
    return ascii(reply[:40].decode("latin-1")) if reply else "nothing"


def list_vcpus(link: PacketLink) -> dict[Vcpu, bytes]:
    """Return the stub's vCPUs, each with its thread id as the stub writes it.

    Raises :class:`UnsupportedError` when it lists none, :class:`ProtocolError` for what is no list.
    """
    found: dict[Vcpu, bytes] = {}
    reply = link.request(b"qfThreadInfo")
    while reply[:1] == b"m":
        before = len(found)
        for word in reply[1:].split(b","):
            # gdbsx ends its list with an "l" of its own: "m0,1l".
            text = word.rstrip(b"l")
            found[thread_number(text)] = text
        # A list that does not grow or does not end is damaged.
        if reply.endswith(b"l") or len(found) == before or len(found) > _MAX_VCPUS:
            break
        reply = link.request(b"qsThreadInfo")
    if not found:
        raise UnsupportedError(f"{link.name}: the stub lists no vCPUs: {printable_reply(reply)}", feature="thread list")
    return found


def run_monitor(link: PacketLink, command: str) -> str:
    """Return what the hypervisor's monitor prints for ``command``.

    Raises :class:`UnsupportedError` without a monitor, :class:`TargetError` when it refuses.
    """
    request = b"qRcmd," + to_hex(command.encode())
    reply = link.request(request)
    text: list[bytes] = []
    size = 0
    while reply[:1] == b"O" and reply != b"OK":
        text.append(from_hex(reply[1:]))
        size += len(reply)
        if size > _MAX_MONITOR:
            raise ProtocolError(f"{link.name}: the monitor does not stop talking", reply=reply)
        reply = link.request_more(request)
    if reply == b"":
        raise UnsupportedError(f"{link.name}: the stub has no monitor", feature="monitor")
    if is_error(reply):
        raise TargetError(f"{link.name}: the monitor refused {command!r}: {printable_reply(reply)}")
    if reply != b"OK":
        text.append(from_hex(reply))
    return b"".join(text).decode("utf-8", "replace").replace("\r\n", "\n")
