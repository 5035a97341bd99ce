"""The records of an undo journal as bytes. See :mod:`probekit.patch.journal` for what they mean.

A journal file is the magic, then records until the end::

    50 4b 4a 4c 01 0d 0a 00     "PKJL", format 1, and bytes that a text-mode copy would spoil
    size    u32                 of the payload
    crc     u32                 CRC-32 of kind and payload
    kind    u8, 3 zero bytes
    payload

Edits are columns (all addresses, all sizes, all old bytes, all new bytes), so
that 90,000 of them are packed in a few milliseconds. Everything else is small
and is JSON. Nothing here trusts the file: a reader may meet any bytes.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple

from probekit.patch.edits import Edit

__all__ = (
    "MAGIC",
    "Kind",
    "Record",
    "RecordError",
    "decode_edits",
    "decode_facts",
    "edits_size",
    "encode_edits",
    "encode_facts",
    "encode_record",
    "first_record",
    "read_records",
)

MAGIC = b"PKJL\x01\r\n\x00"
_HEAD = struct.Struct("<IIB3x")

Facts = dict[str, object]


class Kind(IntEnum):
    """What a record says. Numbers are for ever."""

    HEADER = 1
    EDITS = 2
    EDITS_REVERTED = 3
    ALLOCATED = 4
    FREED = 5
    CALL_STARTED = 6
    CALL_DONE = 7
    NOTE = 8
    REGISTERED = 9
    UNREGISTERED = 10


class RecordError(ValueError):
    """A record that is not what its kind demands."""


class Record(NamedTuple):
    kind: int
    payload: bytes


def encode_record(kind: Kind, payload: bytes) -> bytes:
    crc = zlib.crc32(payload, zlib.crc32(bytes((kind,))))
    return _HEAD.pack(len(payload), crc, kind) + payload


def read_records(data: bytes) -> tuple[list[Record], bool]:
    """All records of a file's bytes, and whether its end is torn off.

    Zeros to the end are room that was kept for records. A last record that is
    incomplete or wrong was being written when the process died. A wrong one
    with more behind it is damage: :class:`RecordError`.
    """
    if not data.startswith(MAGIC):
        raise RecordError("it does not begin like a journal")
    records: list[Record] = []
    offset = len(MAGIC)
    written = len(data.rstrip(b"\0"))  # of the last record, trailing zeros of its own aside
    while offset < written:
        start = offset + _HEAD.size
        if start > len(data):
            return records, True
        size, crc, kind = _HEAD.unpack_from(data, offset)
        if size > len(data) - start:
            return records, True
        payload = data[start : start + size]
        if zlib.crc32(payload, zlib.crc32(bytes((kind,)))) != crc:
            if start + size >= written:
                return records, True
            raise RecordError(f"the record at byte {offset} is damaged")
        records.append(Record(kind, payload))
        offset = start + size
    return records, False


def first_record(data: bytes) -> Record:
    """The first record of a file that ``data`` begins, whatever comes behind it."""
    at = len(MAGIC)
    size = _HEAD.unpack_from(data, at)[0] if len(data) >= at + _HEAD.size else 0
    records, torn = read_records(data[: at + _HEAD.size + size])
    if torn or not records:
        raise RecordError("it has no header")
    return records[0]


def whole_size(records: Sequence[Record]) -> int:
    """How many bytes of a file these first records of it take: where a torn tail begins."""
    return len(MAGIC) + sum(_HEAD.size + len(record.payload) for record in records)


def encode_edits(edits: Sequence[Edit]) -> bytes:
    """u32 count, u64 addresses, u16 sizes, the old bytes one after another, the new bytes likewise."""
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
    """Bytes of the record of edits that replace these ``windows``."""
    return _HEAD.size + 4 + sum(10 + 2 * len(old) for old in windows)


def decode_edits(payload: bytes) -> tuple[Edit, ...]:
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
    return tuple(
        Edit(addr, payload[start:end], payload[start + total : end + total])
        for addr, start, end in zip(addrs, ends, ends[1:], strict=False)
    )


def encode_facts(facts: Facts) -> bytes:
    """A small record: one JSON object; bytes are given as hex by the caller."""
    return json.dumps(facts, separators=(",", ":")).encode()


def decode_facts(payload: bytes, shape: dict[str, type | tuple[type, ...]]) -> Facts:
    """The JSON object of a small record, with at least the keys of ``shape``, each of its type."""
    try:
        facts = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise RecordError("a record is no JSON") from error
    if not isinstance(facts, dict):
        raise RecordError("a record is no object")
    for key, kind in shape.items():
        value = facts.get(key)
        # bool is an int to Python, and nothing here is one.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RecordError(f"a record's {key!r} is not of the right type")
    return facts
