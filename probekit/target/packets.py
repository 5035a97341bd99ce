"""Frame and unframe packets of the gdb remote protocol. All functions are pure.

A packet is ``$`` payload ``#`` two hex digits: the sum of the payload's bytes
modulo 256. Each packet is acknowledged by one ``+`` (or ``-``: send it
again) unless both sides agreed on no-ack mode::

    frame(b"m1000,8")  ->  b"$m1000,8#..."

A reply may be run-length encoded (``0*"`` is ``0`` and five more: the count
is the character's code minus 29), and binary parts escape ``# $ } *`` as
``}`` followed by the byte xor 0x20.
"""

from __future__ import annotations

import re
from binascii import Error as BinasciiError
from binascii import hexlify, unhexlify
from collections.abc import Iterable
from enum import Enum
from typing import Final
from zlib import adler32

from probekit.errors import ProtocolError

__all__ = (
    "BREAK",
    "MAX_EXPANDED",
    "OK_REPLY",
    "LinkEvent",
    "checksum",
    "expand_rle",
    "frame",
    "frame_many",
    "from_hex",
    "hex_field",
    "to_hex",
    "unescape",
    "unframe",
)

BREAK: Final = b"\x03"
"""The byte that asks a stub to stop the machine. It is no packet."""

MAX_EXPANDED: Final = 1 << 20
"""The longest reply accepted once run lengths are expanded, in bytes."""

OK_REPLY: Final = b"$OK#9a"
"""The whole packet ``OK``."""

_SLICE: Final = 256
_SHORT: Final = 64
_HEX_PAIR: Final = re.compile(rb"[0-9a-fA-F]{2}")
_HEX_FIELD: Final = re.compile(rb"[0-9a-fA-F]{1,16}")


class LinkEvent(Enum):
    """What a byte stream may hold instead of a good packet."""

    ACK = "+"
    """The other side got a packet."""
    NAK = "-"
    """The other side wants a packet again."""
    BAD_CHECKSUM = "bad checksum"
    """A packet arrived damaged."""


def checksum(payload: bytes) -> int:
    """Return the sum of the bytes modulo 256.

    Long payloads go through ``adler32``, whose low half is that sum modulo
    65521: exact for a slice of 256 bytes, and ten times faster than ``sum``.
    """
    if len(payload) <= _SHORT:
        return sum(payload) & 0xFF
    total = 0
    for start in range(0, len(payload), _SLICE):
        total += adler32(payload[start : start + _SLICE], 0) & 0xFFFF
    return total & 0xFF


def frame(payload: bytes) -> bytes:
    """Return ``payload`` (already escaped, if binary) as a packet."""
    return b"$%b#%02x" % (payload, checksum(payload))


def frame_many(payloads: Iterable[bytes], between: bytes = b"") -> bytes:
    """Return many packets in one buffer, in order. ``between``: bytes between each two of them."""
    return between.join([b"$%b#%02x" % (p, checksum(p)) for p in payloads])


def unframe(buffer: bytes | bytearray, start: int) -> tuple[LinkEvent | bytes | None, int]:
    """Return the next acknowledgement or packet payload from ``start``, and the position after it.

    None when there is no whole one yet; the position is then where it may
    begin. Bytes that begin no packet are skipped, and notifications (``%...#xx``)
    too. The payload is as on the wire (see :func:`expand_rle`).
    """
    size = len(buffer)
    while start < size:
        first = buffer[start]
        if first == 0x2B:
            return LinkEvent.ACK, start + 1
        if first == 0x2D:
            return LinkEvent.NAK, start + 1
        if first not in (0x24, 0x25):
            start += 1
            continue
        end = buffer.find(b"#", start)
        if end < 0 or end + 3 > size:
            return None, start
        payload = bytes(buffer[start + 1 : end])
        digits = bytes(buffer[end + 1 : end + 3])
        if first == 0x25:
            start = end + 3
            continue
        if not _HEX_PAIR.fullmatch(digits) or int(digits, 16) != checksum(payload):
            return LinkEvent.BAD_CHECKSUM, end + 3
        return payload, end + 3
    return None, start


def expand_rle(payload: bytes, limit: int = MAX_EXPANDED) -> bytes:
    """Expand the run lengths in ``payload``. Raises :class:`ProtocolError` for a bad run or beyond ``limit`` bytes."""
    if b"*" not in payload:
        return payload
    parts = payload.split(b"*")
    out = bytearray(parts[0])
    for part in parts[1:]:
        if not out or not part or not 32 <= part[0] <= 126:
            raise ProtocolError("the stub sent a run length that repeats nothing", reply=payload)
        out += out[-1:] * (part[0] - 29)
        out += part[1:]
        if len(out) > limit:
            raise ProtocolError(f"the stub sent a reply of more than {limit} bytes", reply=payload)
    return bytes(out)


def unescape(payload: bytes) -> bytes:
    """Undo the ``}`` escapes of a binary ``payload``. Raises :class:`ProtocolError` for an escape of nothing."""
    if b"}" not in payload:
        return payload
    head, *rest = payload.split(b"}")
    out = bytearray(head)
    for part in rest:
        if not part:
            # "}}" never comes from escaping: the escaped brace is "}]".
            raise ProtocolError("the stub sent an escape of nothing", reply=payload)
        out.append(part[0] ^ 0x20)
        out += part[1:]
    return bytes(out)


def to_hex(data: bytes) -> bytes:
    """Return two hex digits for each byte."""
    return hexlify(data)


def from_hex(text: bytes) -> bytes:
    """Return the bytes of hex ``text``. Raises :class:`ProtocolError` when it is not hex."""
    try:
        return unhexlify(text)
    except (BinasciiError, ValueError) as problem:
        raise ProtocolError("the stub answered something that is not hex", reply=text) from problem


def hex_field(text: bytes) -> int:
    """Return a hex number of at most 16 digits. Raises :class:`ProtocolError` for any other text."""
    if not _HEX_FIELD.fullmatch(text):
        raise ProtocolError("the stub sent a number that is not hex", reply=text)
    return int(text, 16)
