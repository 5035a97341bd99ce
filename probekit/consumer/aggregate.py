"""Aggregations: keys decoded, CPUs merged, values finished, rows sorted as DTrace sorts them.

    CPU 0 {("bash",): (3,)}   CPU 1 {("bash",): (1,), ("init",): (9,)}
    -> Aggregation(rows=(Row(("bash",), 4), Row(("init",), 9)))

The order is DTrace's: by value ascending, so that the biggest comes last and
stays on the screen, then by key. A ``quantize()`` weighs as the sum of its
buckets' labels times their counts, then as its count of zeros. Keys compare
column by column, integers as their type has them and strings as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from probekit.buffers.aggs import AGG_FUNCS, AggFuncName, AggKey, AggPlan, KeyPart
from probekit.buffers.layout import DenseStore, TableStore, read_dense, read_table
from probekit.buffers.quantize import ZERO_BUCKET, bucket_value
from probekit.consumer.events import Aggregation, Average, KeyKind, KeyValue, Probe, Quantize, Row, Value
from probekit.consumer.records import probe_field
from probekit.consumer.strings import decode

__all__ = (
    "JoinedRow",
    "SortOrder",
    "Table",
    "finish",
    "join",
    "key_of_bytes",
    "key_of_probe",
    "merge",
    "stored_rows",
    "truncate",
    "weight",
)

Words = Sequence[int]
Table = Mapping[AggKey, Words]

_LABELS = tuple(bucket_value(i) for i in range(2 * ZERO_BUCKET + 1))


@dataclass(frozen=True, slots=True)
class SortOrder:
    """Options ``aggsortkey``, ``aggsortkeypos``, ``aggsortpos`` and ``aggsortrev``."""

    by_key: bool = False
    key_position: int = 0
    position: int = 0
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class JoinedRow:
    """One key of several aggregations printed side by side; a value is None where that aggregation has no such key."""

    key: tuple[KeyValue, ...]
    values: tuple[Value | None, ...]


def key_of_bytes(parts: Sequence[KeyPart], data: bytes, probes: Mapping[int, Probe]) -> AggKey | None:
    """The key whose words the guest stored, or None when it makes no sense. String parts stay bytes until finished."""
    if len(data) < 8 * sum(part.words for part in parts):
        return None
    key: list[int | str | bytes] = []
    offset = 0
    for part in parts:
        stored = data[offset : offset + 8 * part.words]
        offset += 8 * part.words
        match part.kind:
            case "int" | "uint":
                key.append(_integer(part, stored))
            case "string":
                key.append(stored[: part.size].split(b"\0", 1)[0])
            case "probe":
                probe = probes.get(struct.unpack_from("<Q", stored)[0])
                if probe is None:
                    return None
                key.append(probe_field(probe.name, part.detail))
            case _:
                assert_never(part.kind)
    return tuple(key)


def _integer(part: KeyPart, stored: bytes) -> int:
    """The stored word at the part's own width, so that garbage above it cannot widen a column."""
    size = min(max(part.bits // 8, 1), 8)
    return int.from_bytes(stored[:size], "little", signed=part.kind == "int")


def stored_rows(
    plan: AggPlan, store: DenseStore | TableStore, data: bytes, probes: Mapping[int, Probe]
) -> tuple[list[tuple[AggKey, Words]], int]:
    """What one CPU's store holds, and how many of its entries made no sense. ``probes``: by site number.

    A key may come more than once (two probes of one function): :func:`merge` adds them up.
    """
    rows: list[tuple[AggKey, Words]] = []
    corrupt = 0
    match store:
        case TableStore():
            for stored, words in read_table(store, data):
                key = key_of_bytes(plan.keys, stored, probes)
                if key is None:
                    corrupt += 1
                else:
                    rows.append((key, words))
        case DenseStore():
            for site, words in read_dense(store, data):
                probe = probes.get(site)
                if not plan.keys:
                    rows.append(((), words))
                elif probe is None:
                    corrupt += 1
                else:
                    rows.append((key_of_probe(plan.keys, probe), words))
        case _:
            assert_never(store)
    return rows, corrupt


def key_of_probe(parts: Sequence[KeyPart], probe: Probe) -> AggKey:
    """The key of an aggregation that the probe alone decides (``AggPlan.constant_keyed``)."""
    return tuple(probe_field(probe.name, part.detail) for part in parts)


def merge(func: AggFuncName, tables: Iterable[Table | Iterable[tuple[AggKey, Words]]]) -> dict[AggKey, Words]:
    """All tables as one. A table may also be pairs, in which a key may come more than once."""
    combine = AGG_FUNCS[func].merge
    words_count = AGG_FUNCS[func].words
    merged: dict[AggKey, Words] = {}
    for table in tables:
        for key, words in table.items() if isinstance(table, Mapping) else table:
            if len(words) != words_count:
                continue
            before = merged.get(key)
            merged[key] = tuple(words) if before is None else combine(before, words)
    return merged


def finish(plan: AggPlan, table: Table, *, order: SortOrder | None = None, normal: int = 1) -> Aggregation:
    """The merged table as the model has it: strings decoded, values finished, rows sorted."""
    kinds = tuple(_key_kind(part) for part in plan.keys)
    rows = (
        Row(tuple(decode(k) if isinstance(k, bytes) else k for k in key), _value(plan.func, words))
        for key, words in table.items()
    )
    order = order or SortOrder()
    ranked = sorted(rows, key=_ranking(order), reverse=order.reverse)
    return Aggregation(name=plan.name, func=plan.func, keys=kinds, rows=tuple(ranked), normal=normal)


def _key_kind(part: KeyPart) -> KeyKind:
    return KeyKind(part.kind, part.bits) if part.kind in ("int", "uint") else KeyKind("string")


def _value(func: AggFuncName, words: Words) -> Value:
    match func:
        case "count" | "sum" | "min" | "max":
            return words[0]
        case "avg":
            return Average(total=words[0], count=words[1])
        case "quantize":
            return Quantize(tuple(words))
        case _:
            assert_never(func)


def weight(value: Value | None) -> tuple[int, int]:
    """What rows are sorted by: the value, and what decides between equal ones. A missing value weighs as zero."""
    match value:
        case None:
            return 0, 0
        case int():
            return value, 0
        case Average():
            return value.value, 0
        case Quantize(buckets=buckets):
            total = sum(label * count for label, count in zip(_LABELS, buckets, strict=False) if count)
            return total, buckets[ZERO_BUCKET] if len(buckets) > ZERO_BUCKET else 0
        case _:
            assert_never(value)


def _key_rank(key: Sequence[KeyValue], position: int) -> tuple[Any, ...]:
    """The key as DTrace compares it, from column ``position`` on and then around."""
    ranks = [k if isinstance(k, int) else k.encode("utf-8", "surrogatepass") for k in key]
    start = position if 0 <= position < len(ranks) else 0
    return (*ranks[start:], *ranks[:start])


def _ranking(order: SortOrder) -> Callable[[Row], Any]:
    def rank(row: Row) -> tuple[Any, ...]:
        by_key = _key_rank(row.key, order.key_position)
        return by_key if order.by_key else (weight(row.value), by_key)

    return rank


def truncate(aggregation: Aggregation, keep: int) -> Aggregation:
    """``trunc(@a, keep)``: the ``keep`` greatest rows, or for a negative number the ``-keep`` smallest."""
    ranked = sorted(aggregation.rows, key=_ranking(SortOrder()))
    chosen = set(ranked[max(len(ranked) - keep, 0) :] if keep >= 0 else ranked[:-keep])
    return Aggregation(
        name=aggregation.name,
        func=aggregation.func,
        keys=aggregation.keys,
        rows=tuple(row for row in aggregation.rows if row in chosen),
        normal=aggregation.normal,
    )


def join(aggregations: Sequence[Aggregation], order: SortOrder | None = None) -> list[JoinedRow]:
    """Aggregations with the same kinds of keys, one row for each key: ``printa(@a, @b)``."""
    order = order or SortOrder()
    if not aggregations:
        return []
    columns = [{row.key: row.value for row in a.rows} for a in aggregations]
    rows = [
        JoinedRow(key, tuple(column.get(key) for column in columns))
        for key in dict.fromkeys(key for column in columns for key in column)
    ]
    first = order.position if 0 <= order.position < len(columns) else 0

    def rank(row: JoinedRow) -> tuple[Any, ...]:
        by_key = _key_rank(row.key, order.key_position)
        by_value = tuple(weight(v) for v in (*row.values[first:], *row.values[:first]))
        return (by_key, by_value) if order.by_key else (by_value, by_key)

    return sorted(rows, key=rank, reverse=order.reverse)
