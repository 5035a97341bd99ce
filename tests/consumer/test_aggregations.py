"""Aggregations: keys, merging, finishing, order."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.aggs import AGG_FUNCS, AggPlan, KeyPart, datum
from probekit.buffers.layout import DenseStore, TableStore
from probekit.buffers.quantize import BUCKETS, bucket_of
from probekit.consumer.aggregations import (
    SortOrder,
    finish,
    join,
    key_of_bytes,
    key_of_probe,
    keys_to_keep,
    merge,
    stored_rows,
    weight,
)
from probekit.consumer.events import Aggregation, Average, JoinedRow, KeyKind, ProbeIdentity, Quantize, Row, StdDev
from probekit.probe.names import ProbeName

READ = ProbeIdentity(7, ProbeName("fbt", "vmlinux", "vfs_read", "entry"))
BACK = ProbeIdentity(8, ProbeName("fbt", "vmlinux", "vfs_read", "return"))
PROBES = {0: READ, 1: BACK}


def plan(func: Any, *keys: KeyPart) -> AggPlan:
    return AggPlan(index=0, name="a", func=func, keys=keys)


def quantized(*values: int) -> Quantize:
    buckets = [0] * BUCKETS
    for value in values:
        buckets[bucket_of(value)] += 1
    return Quantize(tuple(buckets))


def test_keys_from_guest_memory() -> None:
    parts = (KeyPart("int", bits=32), KeyPart("string", size=12), KeyPart("probe", detail="probefunc"))
    data = struct.pack("<q16sQ", -3, b"bash\0junk", 1)
    assert key_of_bytes(parts, data, PROBES) == (-3, b"bash", "vfs_read")
    assert key_of_bytes(parts, data[:-1], PROBES) is None
    assert key_of_bytes(parts, struct.pack("<q16sQ", 0, b"", 2), PROBES) is None
    assert key_of_bytes((), b"", PROBES) == ()


def test_an_integer_key_keeps_its_own_width() -> None:
    word = struct.pack("<Q", 0xDEADBEEF_FFFFFFFF)
    assert key_of_bytes((KeyPart("int", bits=32),), word, {}) == (-1,)
    assert key_of_bytes((KeyPart("uint", bits=32),), word, {}) == (0xFFFFFFFF,)
    assert key_of_bytes((KeyPart("uint", bits=8),), word, {}) == (0xFF,)
    assert key_of_bytes((KeyPart("int", bits=64),), struct.pack("<q", -9), {}) == (-9,)


@given(data=st.binary(max_size=64), kinds=st.lists(st.sampled_from(("int", "uint", "string", "probe")), max_size=4))
def test_no_bytes_make_the_key_reader_raise(data: bytes, kinds: list[Any]) -> None:
    key_of_bytes([KeyPart(kind, size=16 if kind == "string" else 8) for kind in kinds], data, PROBES)


def test_a_key_that_the_probe_decides() -> None:
    parts = (KeyPart("probe", detail="probemod"), KeyPart("probe", detail="probename"))
    assert key_of_probe(parts, BACK) == ("vmlinux", "return")
    assert key_of_probe((), BACK) == ()


def test_rows_of_a_dense_store() -> None:
    by_function = plan("sum", KeyPart("probe", detail="probefunc"))
    store = DenseStore(agg=0, offset=0, words=1, count=3, presence=True)
    data = struct.pack("<6q", 5, 1, 0, 0, -7, 1)
    assert stored_rows(by_function, store, data, PROBES) == ([(("vfs_read",), (5,))], 1)
    assert stored_rows(by_function, store, data, {2: BACK, 0: READ})[0] == [
        (("vfs_read",), (5,)),
        (("vfs_read",), (-7,)),
    ]


def test_rows_of_a_store_without_keys() -> None:
    store = DenseStore(agg=0, offset=0, words=1, count=1, presence=False)
    assert stored_rows(plan("count"), store, struct.pack("<q", 4), {}) == ([((), (4,))], 0)


def test_rows_of_a_table() -> None:
    store = TableStore(agg=0, offset=0, key_words=1, words=1, capacity=8)
    data = struct.pack("<3Q", 9, 0, 11) + struct.pack("<3Q", 9, 77, 12) + bytes(store.size - 48)
    by_function = plan("count", KeyPart("probe", detail="probefunc"))
    assert stored_rows(by_function, store, data, PROBES) == ([(("vfs_read",), (11,))], 1)


def test_two_probes_of_one_function_are_one_row() -> None:
    parts = (KeyPart("probe", detail="probefunc"),)
    merged = merge(plan("count"), [[(key_of_probe(parts, READ), (2,)), (key_of_probe(parts, BACK), (3,))]])
    assert finish(plan("count", *parts), merged).rows == (Row(("vfs_read",), 5),)


def test_merging_each_function() -> None:
    a, b = (4, 2), (-6, 1)
    assert merge(plan("avg"), [{(): a}, {(): b}]) == {(): (-2, 3)}
    assert merge(plan("count"), [{(1,): (1,)}, {(1,): (2,), (2,): (5,)}]) == {(1,): (3,), (2,): (5,)}
    assert merge(plan("min"), [{(): (4,)}, {(): (-6,)}]) == {(): (-6,)}
    assert merge(plan("max"), [{(): (4,)}, {(): (-6,)}]) == {(): (4,)}
    assert merge(plan("sum"), []) == {}


def test_a_row_of_the_wrong_length_is_left_out() -> None:
    assert merge(plan("avg"), [{(): (1,)}, {(): (1, 1, 1)}]) == {}


TABLES = st.lists(
    st.dictionaries(
        st.tuples(st.integers(-3, 3)), st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 9)), max_size=4
    ),
    max_size=5,
)


@given(tables=TABLES, func=st.sampled_from(("count", "sum", "min", "max", "avg")), seed=st.randoms())
def test_merging_does_not_depend_on_the_order(tables: list[Any], func: Any, seed: Any) -> None:
    words = AGG_FUNCS[func].words
    cut = [{key: value[:words] for key, value in table.items()} for table in tables]
    shuffled = list(cut)
    seed.shuffle(shuffled)
    assert merge(plan(func), cut) == merge(plan(func), shuffled)
    assert finish(plan(func, KeyPart("int")), merge(plan(func), cut)) == finish(
        plan(func, KeyPart("int")), merge(plan(func), shuffled)
    )


def test_values_are_finished() -> None:
    assert finish(plan("avg"), {(): (-7, 2)}).rows == (Row((), Average(-7, 2)),)
    assert Average(-7, 2).value == -3
    assert Average(7, 2).value == 3
    assert Average(7, 0).value == 0
    assert finish(plan("quantize"), {(): quantized(1).buckets}).rows == (Row((), quantized(1)),)
    assert finish(plan("count"), {}).rows == ()


def test_keys_are_decoded_last() -> None:
    done = finish(plan("count", KeyPart("string", size=16), KeyPart("uint", bits=16)), {(b"a\xff", 1): (1,)})
    assert done.keys == (KeyKind("string"), KeyKind("uint", 16))
    assert done.rows == (Row(("a\udcff", 1), 1),)


def test_rows_ascend_by_value_then_by_key() -> None:
    table = {(b"b",): (1,), (b"a",): (1,), (b"z",): (-5,), (b"big",): (9,)}
    done = finish(plan("sum", KeyPart("string", size=8)), table)
    assert [row.key[0] for row in done.rows] == ["z", "a", "b", "big"]


def test_sort_options() -> None:
    table = {(1, 3): (10,), (2, 2): (30,), (3, 1): (20,), (-1, 5): (20,)}
    keys = (KeyPart("int"), KeyPart("int"))

    def keys_in(order: SortOrder) -> list[Any]:
        return [row.key for row in finish(plan("sum", *keys), table, order=order).rows]

    assert keys_in(SortOrder()) == [(1, 3), (-1, 5), (3, 1), (2, 2)]
    assert keys_in(SortOrder(by_key=True)) == [(-1, 5), (1, 3), (2, 2), (3, 1)]
    assert keys_in(SortOrder(by_key=True, key_position=1)) == [(3, 1), (2, 2), (1, 3), (-1, 5)]
    assert keys_in(SortOrder(by_key=True, key_position=9)) == [(-1, 5), (1, 3), (2, 2), (3, 1)]
    assert keys_in(SortOrder(reverse=True)) == [(2, 2), (3, 1), (-1, 5), (1, 3)]
    assert keys_in(SortOrder(key_position=1)) == [(1, 3), (3, 1), (-1, 5), (2, 2)]


def test_quantize_weighs_as_its_buckets_do() -> None:
    assert weight(quantized(1, 2, 3)) == (1 + 2 + 2, 0)
    assert weight(quantized(-5, 0, 0)) == (-4, 2)
    table = {(1,): quantized(100).buckets, (2,): quantized(1, 1).buckets, (3,): quantized(0).buckets, (4,): ()}
    table[4,] = quantized().buckets
    done = finish(plan("quantize", KeyPart("int")), table)
    assert [row.key for row in done.rows] == [(4,), (3,), (2,), (1,)]


def test_average_sorts_by_its_quotient() -> None:
    done = finish(plan("avg", KeyPart("int")), {(1,): (100, 100), (2,): (6, 2)})
    assert [row.key for row in done.rows] == [(1,), (2,)]


def test_what_trunc_keeps() -> None:
    table = {(i,): (i * 10,) for i in range(5)}
    by_number = plan("sum", KeyPart("int"))
    assert keys_to_keep(by_number, table, 2) == {(3,), (4,)}
    assert keys_to_keep(by_number, table, -2) == {(0,), (1,)}
    assert keys_to_keep(by_number, table, 0) == set()
    assert keys_to_keep(by_number, table, 99) == keys_to_keep(by_number, table, -99) == set(table)


def test_linear_histograms_weigh_by_their_bases() -> None:
    linear = AggPlan(0, "a", "lquantize", (), (0, 20, 10))
    done = finish(linear, {(): (1, 2, 3, 4)}).rows[0].value
    assert weight(done) == (-1 + 0 + 30 + 4 * 21, 2)


def test_stddev_is_exact() -> None:
    done = finish(
        plan("stddev"), merge(plan("stddev"), [{(): datum(plan("stddev"), v)} for v in (2, 4, 4, 4, 5, 5, 7, 9)])
    )
    assert done.rows[0].value == StdDev(8, 40, 232)
    assert weight(done.rows[0].value) == (2, 0)
    assert StdDev(1, -(1 << 62), 1 << 124).value() == 0
    assert StdDev(0, 0, 0).value() == 0
    assert StdDev(2, 0, 2 * 1000**2).value(10) == 100


def test_join() -> None:
    def agg(name: str, rows: dict[int, int]) -> Aggregation:
        return Aggregation(name, "sum", (KeyKind("int"),), tuple(Row((k,), v) for k, v in rows.items()))

    a, b = agg("a", {1: 5, 2: 1}), agg("b", {1: 0, 3: 7})
    assert join([a, b]) == [
        JoinedRow((3,), (None, 7), (1, 1)),
        JoinedRow((2,), (1, None), (1, 1)),
        JoinedRow((1,), (5, 0), (1, 1)),
    ]
    assert [row.key for row in join([a, b], SortOrder(position=1))] == [(2,), (1,), (3,)]
    assert [row.key for row in join([a, b], SortOrder(by_key=True))] == [(1,), (2,), (3,)]
    assert join([]) == []
