"""Read and write guest memory through gdb's MI commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from probekit.errors import MemoryAccessError
from probekit.interruption import check_interrupted
from probekit.target.gdb_process import GdbProcess, Record
from probekit.target.memory_packets import plan_reads, plan_writes

__all__ = ("read_ranges", "write_edits")

_READ_SIZE: Final = 0x4000
_WRITE_SIZE: Final = 0x1000
_AT_ONCE: Final = 256  # reads between two looks at whether the user wants to stop


def read_ranges(gdb: GdbProcess, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
    """Read ``(address, size)`` ranges through the selected thread; None where one is unreadable."""
    plan = plan_reads(ranges, _READ_SIZE)
    reads = [f"-data-read-memory-bytes {addr:#x} {size}" for addr, size in plan.pieces]
    records: list[Record] = []
    while len(records) < len(reads):
        check_interrupted()
        records += gdb.commands(reads[len(records) :][:_AT_ONCE])
    results: list[bytes | None] = []
    index = 0
    for count in plan.counts:
        parts = [_record_bytes(records[i], *plan.pieces[i]) for i in range(index, index + count)]
        whole = [part for part in parts if part is not None]
        results.append(b"".join(whole) if len(whole) == count else None)
        index += count
    return results


def _record_bytes(record: Record, addr: int, size: int) -> bytes | None:
    """Return the bytes of one read, or None unless all of them are there."""
    if record["message"] == "error":
        return None
    blocks: Any = record["payload"]["memory"]
    if len(blocks) != 1 or int(blocks[0]["begin"], 16) != addr:
        return None
    data = bytes.fromhex(blocks[0]["contents"])
    return data if len(data) == size else None


def write_edits(gdb: GdbProcess, edits: Iterable[tuple[int, bytes]]) -> None:
    """Write ``(address, bytes)`` edits through the selected thread, in order.

    Raises :class:`MemoryAccessError` for the first that is refused, after all have been tried.
    """
    pieces = plan_writes(edits, _WRITE_SIZE)
    records = gdb.commands([f"-data-write-memory-bytes {addr:#x} {data.hex()}" for addr, data in pieces])
    for (addr, data), record in zip(pieces, records, strict=True):
        if record["message"] == "error":
            raise MemoryAccessError(
                f"guest memory {addr:#x} ({len(data)} bytes) cannot be written: {record['payload'].get('msg', '')}",
                addr=addr,
                size=len(data),
            )
