"""Makes aggregations from the values that CPUs stored: decodes keys, merges CPUs, computes values, sorts.

    CPU 0 {("bash",): (3,)}   CPU 1 {("bash",): (1,), ("init",): (9,)}
    -> Aggregation(rows=(Row(("bash",), 4), Row(("init",), 9)))

The order is DTrace's: by value ascending, so that the greatest is the last and stays on the screen, then by key. A
``quantize()`` is compared by the sum of its buckets' labels times their counts, then by its count of zeros. Keys are
compared column by column, integers by their type and strings as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, assert_never

from probekit.buffers.aggs import AGG_FUNCS, AggKey, AggPlan, KeyPart
from probekit.buffers.layout import DenseStore, TableStore, read_dense, read_table
from probekit.buffers.quantize import BUCKETS, ZERO_BUCKET, Linear, LogLinear, bucket_value
from probekit.consumer.events import (
    Aggregation,
    AggValue,
    Average,
    Histogram,
    JoinedRow,
    KeyKind,
    KeyValue,
    ProbeIdentity,
    Quantize,
    Row,
    StdDev,
)
from probekit.consumer.symbols import Symbols, probe_field
from probekit.consumer.text.strings import decode
from probekit.records import record

__all__ = (
    "AggTable",
    "SortOrder",
    "finish",
    "join",
    "key_of_bytes",
    "key_of_probe",
    "keys_to_keep",
    "merge",
    "stored_rows",
    "weight",
)

Words = Sequence[int]
"""The words of one value, as the guest stores them."""

AggTable = Mapping[AggKey, Words]
"""The values of one aggregation, by key."""

_WEIGHTS = tuple(bucket_value(i) for i in range(BUCKETS))


@record
class SortOrder:
    """The order of rows."""

    by_key: bool = False
    """Whether to sort by key instead of value (option ``aggsortkey``)."""
    key_position: int = 0
    """The index of the key column that is compared first (option ``aggsortkeypos``)."""
    position: int = 0
    """The index of the aggregation that is compared first, if several are joined (option ``aggsortpos``)."""
    reverse: bool = False
    """Whether to reverse the order (option ``aggsortrev``)."""


def key_of_bytes(parts: Sequence[KeyPart], data: bytes, probes: Mapping[int, ProbeIdentity]) -> AggKey | None:
    """Decode the key whose words the guest stored; None when they are malformed. ``probes``: by site number.

    Strings and stacks stay bytes until :func:`finish`.
    """
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
            case "stack":
                key.append(stored[: part.size])
            case "probe":
                probe = probes.get(struct.unpack_from("<Q", stored)[0])
                if probe is None:
                    return None
                key.append(probe_field(probe.name, part.detail))
            case _:
                assert_never(part.kind)
    return tuple(key)


def _integer(part: KeyPart, stored: bytes) -> int:
    """Return the stored word cut to the part's width, so that garbage in its upper bits cannot widen a column."""
    size = min(max(part.bits // 8, 1), 8)
    return int.from_bytes(stored[:size], "little", signed=part.kind == "int")


def stored_rows(
    plan: AggPlan, store: DenseStore | TableStore, data: bytes, probes: Mapping[int, ProbeIdentity]
) -> tuple[list[tuple[AggKey, Words]], int]:
    """Return the keys and values in one CPU's store, and the number of malformed entries. ``probes``: by site number.

    A key may occur more than once (two probes of one function); :func:`merge` adds up its values.
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


def key_of_probe(parts: Sequence[KeyPart], probe: ProbeIdentity) -> AggKey:
    """Return the key of an aggregation whose key depends only on the probe (``AggPlan.constant_keyed``)."""
    return tuple(probe_field(probe.name, part.detail) for part in parts)


def merge(plan: AggPlan, tables: Iterable[AggTable | Iterable[tuple[AggKey, Words]]]) -> dict[AggKey, Words]:
    """Merge all tables into one. A table may also be a list of pairs, in which a key may occur more than once.

    Values of a size other than the plan's are left out.
    """
    combine = AGG_FUNCS[plan.func].merge
    words_count = plan.words
    merged: dict[AggKey, Words] = {}
    for table in tables:
        for key, words in table.items() if isinstance(table, Mapping) else table:
            if len(words) != words_count:
                continue
            before = merged.get(key)
            merged[key] = tuple(words) if before is None else combine(before, words)
    return merged


def finish(
    plan: AggPlan,
    table: AggTable,
    *,
    order: SortOrder | None = None,
    normals: Mapping[AggKey, int] | None = None,
    symbols: Symbols | None = None,
) -> Aggregation:
    """Turn a merged table into an :class:`Aggregation`: decode keys, compute values, sort rows.

    ``normals``: the divisor of ``normalize()``, for each key where it is not 1.
    """
    symbols = symbols or Symbols()
    normals = normals or {}
    rows = (
        Row(
            tuple(_key_value(part, k, symbols) for part, k in zip(plan.keys, key, strict=False)),
            _value(plan, words),
            normals.get(key, 1),
        )
        for key, words in table.items()
    )
    order = order or SortOrder()
    ranked = sorted(rows, key=_ranking(order), reverse=order.reverse)
    return Aggregation(name=plan.name, func=plan.func, keys=tuple(map(_key_kind, plan.keys)), rows=tuple(ranked))


def _key_kind(part: KeyPart) -> KeyKind:
    match part.kind:
        case "int" | "uint":
            return KeyKind("symbol") if part.detail else KeyKind(part.kind, part.bits)
        case "string" | "probe":
            return KeyKind("string")
        case "stack":
            return KeyKind("stack")
        case _:
            assert_never(part.kind)


def _key_value(part: KeyPart, key: int | str | bytes, symbols: Symbols) -> KeyValue:
    if isinstance(key, bytes):
        return "\n".join(symbols.frames(key)) if part.kind == "stack" else decode(key)
    if isinstance(key, int) and part.detail and part.kind in ("int", "uint"):
        return symbols.named(part.detail, key)
    return key


def _value(plan: AggPlan, words: Words) -> AggValue:
    match plan.func:
        case "count" | "sum" | "min" | "max":
            return words[0]
        case "avg":
            return Average(total=words[0], count=words[1])
        case "stddev":
            squares = (words[2] & _WORD_MASK) | (words[3] & _WORD_MASK) << 64
            return StdDev(count=words[0], total=words[1], squares=squares)
        case "quantize":
            return Quantize(tuple(words))
        case "lquantize":
            return Histogram(Linear(*plan.params), tuple(words))
        case "llquantize":
            return Histogram(LogLinear(*plan.params), tuple(words))
        case _:
            assert_never(plan.func)


_WORD_MASK = (1 << 64) - 1


def weight(value: AggValue | None) -> tuple[int, int]:
    """Return the sort key of a value: a number, and one to order equal numbers. A missing value counts as 0."""
    match value:
        case None:
            return 0, 0
        case int():
            return value, 0
        case Average():
            return value.value, 0
        case StdDev():
            return value.value(), 0
        case Quantize(buckets=buckets):
            return _weigh(_WEIGHTS, buckets), buckets[ZERO_BUCKET] if len(buckets) > ZERO_BUCKET else 0
        case Histogram(scale=scale, buckets=buckets):
            zero = scale.zero
            return _weigh(scale.weights, buckets), 0 if zero is None else buckets[zero]
        case _:
            assert_never(value)


def _weigh(weights: Sequence[int], buckets: Sequence[int]) -> int:
    return sum(each * count for each, count in zip(weights, buckets, strict=False) if count)


def _key_rank(key: Sequence[KeyValue], position: int) -> tuple[Any, ...]:
    """Return the sort key of a key: as with DTrace, the columns from ``position`` on, then the columns before."""
    ranks = [k if isinstance(k, int) else k.encode("utf-8", "surrogatepass") for k in key]
    start = position if 0 <= position < len(ranks) else 0
    return (*ranks[start:], *ranks[:start])


def _ranking(order: SortOrder) -> Callable[[Row], Any]:
    def rank(row: Row) -> tuple[Any, ...]:
        by_key = _key_rank(row.key, order.key_position)
        return by_key if order.by_key else (weight(row.value), by_key)

    return rank


def keys_to_keep(plan: AggPlan, table: AggTable, keep: int) -> set[AggKey]:
    """Return the keys that ``trunc(@a, keep)`` keeps: of the ``keep`` greatest values, or the ``-keep`` smallest."""

    def rank(key: AggKey) -> tuple[Any, ...]:
        return weight(_value(plan, table[key])), _key_rank([decode(k) if isinstance(k, bytes) else k for k in key], 0)

    ranked = sorted(table, key=rank)
    return set(ranked[max(len(ranked) - keep, 0) :] if keep >= 0 else ranked[:-keep])


def join(aggregations: Sequence[Aggregation], order: SortOrder | None = None) -> list[JoinedRow]:
    """Join aggregations with the same kinds of keys, one row for each key: ``printa(@a, @b)``."""
    order = order or SortOrder()
    if not aggregations:
        return []
    columns = [{row.key: row for row in a.rows} for a in aggregations]
    rows = [
        JoinedRow(
            key,
            tuple(column[key].value if key in column else None for column in columns),
            tuple(column[key].normal if key in column else 1 for column in columns),
        )
        for key in dict.fromkeys(key for column in columns for key in column)
    ]
    first = order.position if 0 <= order.position < len(columns) else 0

    def rank(row: JoinedRow) -> tuple[Any, ...]:
        by_key = _key_rank(row.key, order.key_position)
        by_value = tuple(weight(v) for v in (*row.values[first:], *row.values[:first]))
        return (by_key, by_value) if order.by_key else (by_value, by_key)

    return sorted(rows, key=rank, reverse=order.reverse)
