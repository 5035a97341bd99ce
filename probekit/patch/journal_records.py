"""Encode the undo journal's records as bytes, each with its kind and a checksum, and read them without trusting them.

A journal file is the magic, then records until the end::

    50 4b 4a 4c 02 0d 0a 00     "PKJL", format 2, and bytes that a text-mode copy would spoil
    size    u32                 of the payload
    crc     u32                 CRC-32 of kind and payload
    kind    u8, 3 zero bytes
    payload

Edits are columns (all addresses, all sizes, all old bytes, all new bytes), so
that 90,000 of them are packed in a few milliseconds. Every other payload is one
small JSON object (:mod:`probekit.patch.journal_payloads`). The file may hold any
bytes, so everything is checked.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple

from probekit.patch.edits import Edit, EditSet

__all__ = (
    "MAGIC",
    "MAGIC_V1",
    "Kind",
    "Record",
    "RecordError",
    "Records",
    "decode_edits",
    "edits_size",
    "encode_edits",
    "encode_record",
    "first_record",
    "read_records",
)

MAGIC = b"PKJL\x02\r\n\x00"
"""The first bytes of a journal of format 2."""
MAGIC_V1 = b"PKJL\x01\r\n\x00"
"""The first bytes of a journal of format 1, whose notes described calls (:mod:`probekit.patch.journal_v1`)."""

_HEAD = struct.Struct("<IIB3x")
_U64 = 1 << 64


class Kind(IntEnum):
    """Numbers the kinds of records. A number keeps its meaning in every format; 6 is used by format 1 only."""

    HEADER = 1
    EDITS = 2
    EDITS_REVERTED = 3
    ALLOCATED = 4
    FREED = 5
    CALL_STARTED_V1 = 6
    CALL_DONE = 7
    NOTE = 8
    REGISTERED = 9
    UNREGISTERED = 10
    CALL_STARTED = 11
    CALL_RETURNED = 12
    TABLE_WRITTEN = 13
    TABLE_WIPED = 14


class RecordError(ValueError):
    """A record cannot be read, or does not fit the records before it."""


class Record(NamedTuple):
    """One record as bytes."""

    kind: int
    """One of :class:`Kind`, or a number that this version does not know."""
    payload: bytes
    """The record's contents without its head."""


class Records(NamedTuple):
    """The records of a file's bytes."""

    magic: bytes
    """:data:`MAGIC` or :data:`MAGIC_V1`."""
    records: list[Record]
    """All whole records, in order."""
    torn: bool
    """Whether the last record was incomplete, and is left out."""
    size: int
    """Bytes of the magic and the whole records. A torn record begins there."""


def encode_record(kind: Kind, payload: bytes) -> bytes:
    """Return the bytes of a record in a file."""
    crc = zlib.crc32(payload, zlib.crc32(bytes((kind,))))
    return _HEAD.pack(len(payload), crc, kind) + payload


def read_records(data: bytes) -> Records:
    """Return all records of a file's bytes.

    Zeros up to the end are room that was reserved for records. When the last record is
    incomplete or its checksum is wrong, the process died while writing it. A wrong
    checksum with more records after it raises :class:`RecordError`.
    """
    magic = data[: len(MAGIC)]
    if magic not in (MAGIC, MAGIC_V1):
        raise RecordError("it does not begin like a journal")
    records: list[Record] = []
    offset = len(MAGIC)
    written = len(data.rstrip(b"\0"))  # the end of the last record, or a little before when it ends with zeros
    while offset < written:
        start = offset + _HEAD.size
        if start > len(data):
            return Records(magic, records, True, offset)
        size, crc, kind = _HEAD.unpack_from(data, offset)
        if size > len(data) - start:
            return Records(magic, records, True, offset)
        payload = data[start : start + size]
        if zlib.crc32(payload, zlib.crc32(bytes((kind,)))) != crc:
            if start + size >= written:
                return Records(magic, records, True, offset)
            raise RecordError(f"the record at byte {offset} is damaged")
        records.append(Record(kind, payload))
        offset = start + size
    return Records(magic, records, False, offset)


def first_record(data: bytes) -> Record:
    """Return the first record of a file. ``data``: the file's first bytes. Raises :class:`RecordError`."""
    at = len(MAGIC)
    size = _HEAD.unpack_from(data, at)[0] if len(data) >= at + _HEAD.size else 0
    found = read_records(data[: at + _HEAD.size + size])
    if found.torn or not found.records:
        raise RecordError("it has no header")
    return found.records[0]


def encode_edits(edits: Sequence[Edit]) -> bytes:
    """Pack edits: u32 count, u64 addresses, u16 sizes, all old bytes, all new bytes."""
    count = len(edits)
    sizes = [len(edit.old) for edit in edits]
    return b"".join(
        (
            struct.pack(f"<I{count}Q{count}H", count, *[edit.addr for edit in edits], *sizes),
            *[edit.old for edit in edits],
            *[edit.new for edit in edits],
        )
    )


def edits_size(windows: Sequence[bytes]) -> int:
    """Return how many bytes the record of edits takes that replace these ``windows``."""
    return _HEAD.size + 4 + sum(10 + 2 * len(old) for old in windows)


def decode_edits(payload: bytes) -> tuple[Edit, ...]:
    """Unpack what :func:`encode_edits` packed.

    Raises :class:`RecordError` for bytes that do not add up, and for empty or overlapping edits.
    """
    if len(payload) < 4:
        raise RecordError("edits without a count")
    (count,) = struct.unpack_from("<I", payload)
    sizes_at = 4 + 8 * count
    old_at = sizes_at + 2 * count
    if old_at > len(payload):
        raise RecordError("more edits announced than there are bytes")
    sizes = struct.unpack_from(f"<{count}H", payload, sizes_at)
    total = sum(sizes)
    if len(payload) != old_at + 2 * total:
        raise RecordError("the bytes of the edits do not add up")
    addrs = struct.unpack_from(f"<{count}Q", payload, 4)
    ends = list(accumulate(sizes, initial=old_at))
    edits = tuple(
        Edit(addr, payload[start:end], payload[start + total : end + total])
        for addr, start, end in zip(addrs, ends, ends[1:], strict=False)
    )
    try:
        last = EditSet(edits).edits[-1:]
    except ValueError as error:
        raise RecordError(str(error)) from error
    if any(edit.addr + len(edit.old) > _U64 for edit in last):
        raise RecordError("an edit goes beyond the end of memory")
    return edits
