"""Cut memory requests into packets, and put their replies together again.

A *piece* is one packet's worth: (address, size) or (address, bytes). Reads
are cut so that a piece never crosses a page when the piece size divides a
page, so one unmapped page costs one refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from probekit.errors import ProtocolError
from probekit.target.packets import from_hex

__all__ = ("ReadPlan", "join_replies", "plan_reads", "plan_writes")


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """The packets that read some ranges."""

    pieces: list[tuple[int, int]]
    """The (address, size) of every packet."""
    counts: list[int]
    """How many of the pieces make each range."""


def plan_reads(ranges: Sequence[tuple[int, int]], piece_size: int) -> ReadPlan:
    """Cut ``ranges`` of (address, size) into pieces. Raises :class:`ValueError` for a size below zero."""
    pieces: list[tuple[int, int]] = []
    counts: list[int] = []
    for addr, size in ranges:
        if size < 0 or addr < 0:
            raise ValueError(f"cannot read {size} bytes at {addr:#x}")
        before = len(pieces)
        end = addr + size
        while addr < end:
            step = min(end - addr, piece_size - addr % piece_size)
            pieces.append((addr, step))
            addr += step
        counts.append(len(pieces) - before)
    return ReadPlan(pieces, counts)


def join_replies(
    plan: ReadPlan, replies: Sequence[bytes], read_rest: Callable[[int, int], bytes]
) -> list[bytes | None]:
    """Return the bytes of each range; None where any piece was refused.

    ``read_rest(addr, size)``: asks again for what a short reply left out.
    Raises :class:`ProtocolError` for a reply that does not hold memory.
    """
    results: list[bytes | None] = []
    index = 0
    for count in plan.counts:
        pieces = zip(plan.pieces[index : index + count], replies[index : index + count], strict=True)
        parts = [_piece_bytes(addr, size, reply, read_rest) for (addr, size), reply in pieces]
        whole = [part for part in parts if part is not None]
        results.append(b"".join(whole) if len(whole) == count else None)
        index += count
    return results


def _piece_bytes(addr: int, size: int, reply: bytes, read_rest: Callable[[int, int], bytes]) -> bytes | None:
    """Return one piece's bytes, or None when it was refused."""
    if len(reply) == 2 * size:
        return from_hex(reply)
    data = b""
    while True:
        if not reply or reply[:1] == b"E":
            return None
        data += from_hex(reply)
        if len(data) == size:
            return data
        if len(data) > size:
            raise ProtocolError(f"the stub sent {len(data)} bytes of memory where {size} were asked for", reply=reply)
        reply = read_rest(addr + len(data), size - len(data))


def plan_writes(edits: Iterable[tuple[int, bytes]], piece_size: int) -> list[tuple[int, bytes]]:
    """Cut and join ``edits`` into pieces of at most ``piece_size`` bytes, in order.

    Two edits share a piece only when the second begins exactly where the
    first ends, so that only the bytes that were asked for are written.
    """
    pieces: list[tuple[int, bytes]] = []
    last_end = -1
    for addr, data in edits:
        if addr == last_end and len(pieces[-1][1]) + len(data) <= piece_size:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + data)
        elif len(data) <= piece_size:
            if not data:
                continue
            pieces.append((addr, bytes(data)))
        else:
            pieces += [(addr + i, bytes(data[i : i + piece_size])) for i in range(0, len(data), piece_size)]
        last_end = addr + len(data)
    return pieces
