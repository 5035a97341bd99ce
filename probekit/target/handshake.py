"""Ask a stub once, when connecting, what it can do.

A stub that does not know a packet answers with an empty reply, so every
feature is asked for and none is inferred from a version. ``qSupported``
itself may be unknown (gdbsx): then the defaults below hold.

QEMU is recognized by its own packet ``qqemu.sstepbits``. Its *single-step mask*
says what is blocked during a step; ``NOIRQ`` and ``NOTIMER`` keep a step
from ending in an interrupt handler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from probekit.errors import InternalError, ProtocolError, TargetTimeout
from probekit.interruption import uninterrupted
from probekit.target.packet_link import PacketLink
from probekit.target.packets import unescape
from probekit.target.register_layout import RegisterLayout, layout_from_xml

__all__ = ("StubFeatures", "negotiate", "read_layout")

_OFFER: Final = b"qSupported:multiprocess+;swbreak+;hwbreak+;qXfer:features:read+;vContSupported+"
_ATTEMPTS: Final = 3
_DEFAULT_CHUNK: Final = 0x7FF
_MAX_CHUNK: Final = 0x4000
_HEADER: Final = 64
_QEMU_WINDOW: Final = 300
_QUIET_WINDOW: Final = 200
_MAX_XML: Final = 1 << 17
_INCLUDE: Final = re.compile(r'<xi:include\s+href="([\w.-]{1,64})"\s*/>')
_ERROR: Final = re.compile(rb"E[0-9a-fA-F]{2}")


@dataclass(frozen=True, slots=True)
class StubFeatures:
    """What was negotiated with a stub."""

    multiprocess: bool
    """Thread ids have a process part."""
    vcont: bool
    """It knows ``vCont`` with ``c`` and ``s``."""
    qemu: bool
    """It is QEMU's."""
    physical: bool
    """It can read guest physical memory."""
    describes_itself: bool
    """It has a target description."""
    read_size: int
    """The most memory that one packet reads, in bytes."""
    write_size: int
    """The most memory that one packet writes, in bytes."""
    step_mask: int | None
    """QEMU's single-step mask before ours; None where there is none, or it already was ours."""


def negotiate(link: PacketLink) -> StubFeatures:
    """Ask the stub what it can do, and set its modes. Raises :class:`TargetTimeout` when it does not answer."""
    supported = _first_contact(link)
    with uninterrupted():
        return _features(link, supported)


def _features(link: PacketLink, supported: bytes) -> StubFeatures:
    words = dict(word.partition(b"=")[::2] for word in supported.split(b";") if word)
    if b"QStartNoAckMode+" in words and link.request(b"QStartNoAckMode") == b"OK":
        link.acks = False
        link.window = _QUIET_WINDOW
    vcont = link.request(b"vCont?").split(b";")
    qemu, mask = _qemu_steps(link) if supported else (False, None)
    if qemu:
        link.window = _QEMU_WINDOW
    physical = qemu and link.request(b"qqemu.PhyMemMode") in (b"0", b"1")
    if physical:
        link.request(b"Qqemu.PhyMemMode:0")
    packet_size = _packet_size(words.get(b"PacketSize"))
    return StubFeatures(
        multiprocess=b"multiprocess+" in words,
        vcont={b"c", b"s"} <= set(vcont[1:]),
        qemu=qemu,
        physical=physical,
        describes_itself=b"qXfer:features:read+" in words,
        # QEMU takes exactly half its packet size, which divides a page.
        read_size=_chunk(packet_size // 2 if qemu else (packet_size - 4) // 2, packet_size),
        write_size=_chunk((packet_size - _HEADER) // 2, packet_size),
        step_mask=mask,
    )


def _first_contact(link: PacketLink) -> bytes:
    """Return the reply to ``qSupported``. A stub that its last client left within a packet needs a second try."""
    whole = link.timeout
    link.timeout = whole / _ATTEMPTS
    try:
        for attempt in range(_ATTEMPTS):
            try:
                return link.request_first(_OFFER)
            except TargetTimeout:
                if attempt == _ATTEMPTS - 1:
                    raise TargetTimeout(
                        f"{link.name}: connected, but no gdb stub answers within {whole:g} s",
                        seconds=whole,
                        hint="a stub serves one client at a time: is another debugger attached? "
                        "Is this the gdb socket, and not the monitor's or QMP's?",
                    ) from None
        raise InternalError("the last attempt neither answered nor failed")
    finally:
        link.timeout = whole


def _qemu_steps(link: PacketLink) -> tuple[bool, int | None]:
    """Tell whether this is QEMU and which single-step mask it had, and set ours."""
    words = link.request(b"qqemu.sstepbits").decode("latin-1").split(",")
    pairs = [word.partition("=")[::2] for word in words]
    bits = {name: int(value) for name, value in pairs if re.fullmatch(r"[0-9]{1,3}", value)}
    if "ENABLE" not in bits:
        return False, None
    reply = link.request(b"qqemu.sstep").decode("latin-1")
    old = int(reply, 0) if re.fullmatch(r"0x[0-9a-fA-F]{1,4}", reply) else None
    wanted = bits["ENABLE"] | bits.get("NOIRQ", 0) | bits.get("NOTIMER", 0)
    if old == wanted:
        return True, None
    link.request(b"Qqemu.sstep=%x" % wanted)
    return True, old


def _packet_size(text: bytes | None) -> int:
    if text is None:
        return 0
    if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", text):
        raise ProtocolError("the stub gave a packet size that is not a number", reply=text)
    size = int(text, 16)
    if size < 2 * _HEADER:
        raise ProtocolError(f"the stub takes packets of {size} bytes: too small to be used", reply=text)
    return size


def _chunk(size: int, packet_size: int) -> int:
    return min(size, _MAX_CHUNK) if packet_size else _DEFAULT_CHUNK


def read_layout(link: PacketLink) -> RegisterLayout | None:
    """Return the register layout that the stub's target description gives, or None."""
    xml = _read_feature(link, "target.xml")
    for name in _INCLUDE.findall(xml)[:16]:
        xml += _read_feature(link, name)
        if len(xml) > _MAX_XML:
            return None
    return layout_from_xml(xml)


def _read_feature(link: PacketLink, name: str) -> str:
    parts: list[bytes] = []
    size = 0
    while size <= _MAX_XML:
        reply = link.request(b"qXfer:features:read:%b:%x,3fb" % (name.encode(), size))
        if not reply or _ERROR.fullmatch(reply):
            return ""
        data = unescape(reply[1:])
        parts.append(data)
        size += len(data)
        if reply[:1] != b"m" or not data:
            break
    return b"".join(parts).decode("utf-8", "replace")
