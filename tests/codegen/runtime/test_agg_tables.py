"""Aggregation stores: hashed tables full and colliding, keys of every size, first values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import MAX_PROBES_PER_LOOKUP, HeaderWord, TableStore
from tests.codegen.built_program import Function
from tests.codegen.compared import compare
from tests.codegen.machine import Machine
from tests.codegen.scripts import ints

BIG = "y" * 255


def full(guest: Machine, keys: int) -> TableStore:
    for key in range(keys):
        fired = guest.fire(rdi=key * 0x1000)
        assert (fired.fault, fired.bad) == (0, ())
    store = guest.layout.stores[0]
    assert isinstance(store, TableStore)
    return store


def test_a_full_table_counts_every_drop() -> None:
    guest = Machine("fbt::: { @[arg0] = sum(arg0 + 1); }", aggsize=32 * 3 * 8)  # 32 entries of 3 words
    store = full(guest, 100)
    assert store.capacity == 32
    assert guest.table(0) == {(key * 0x1000,): (key * 0x1000 + 1,) for key in range(32)}
    assert guest.word(HeaderWord.AGG_DROPS) == 68
    full(guest, 100)
    assert guest.table(0)[(0x1000,)] == (2 * 0x1001,)
    assert guest.word(HeaderWord.AGG_DROPS) == 2 * 68


def test_drops_are_the_right_aggregation_s() -> None:
    guest = Machine("fbt::: { @a[arg0] = count(); @b[arg0 & 1] = count(); @c[arg0] = count(); }", aggsize=24 * 8)
    full(guest, 20)
    assert [guest.word(HeaderWord.AGG_DROPS + n) for n in range(3)] == [12, 0, 12]


def test_a_lookup_ends_after_its_bound() -> None:
    """All entries in use by others: at most 64 are visited, in a table of any size."""
    steps = {}
    for capacity in (8, 64, 1024):
        guest = Machine("fbt::: { @[arg0] = count(); }", aggsize=capacity * 24)
        store = guest.layout.stores[0]
        assert isinstance(store, TableStore) and store.capacity == capacity
        for entry in range(capacity):
            guest.write(guest.block + store.offset + entry * store.stride, b"\x02")  # a tag that is no key's
        steps[capacity] = guest.fire(rdi=5, count=True).steps
        assert guest.word(HeaderWord.AGG_DROPS) == 1
    assert steps[8] < steps[64] == steps[1024] < 11 * MAX_PROBES_PER_LOOKUP + 100


def test_equal_tags_are_not_equal_keys() -> None:
    """A second key whose hash is that of the first is still another key."""
    guest = Machine("fbt::: { @[arg0, arg1] = count(); }", aggsize=1024)
    guest.fire(rdi=1, rsi=2)
    store = guest.layout.stores[0]
    assert isinstance(store, TableStore)
    places = [guest.block + store.offset + n * store.stride for n in range(store.capacity)]
    (place,) = [p for p in places if any(guest.read(p, 8))]
    guest.write(place + 16, b"\x63")  # the entry is now (1, 99) with the tag of (1, 2)
    guest.fire(rdi=1, rsi=2)
    assert guest.table(0) == {(1, 99): (1,), (1, 2): (1,)}


@settings(max_examples=15)
@given(st.lists(st.tuples(ints, ints), min_size=1, max_size=40))
def test_collisions_lose_nothing(keys: list[tuple[int, int]]) -> None:
    compare(
        "fbt::: { @a[arg0, arg1] = sum(1); @b[arg1 & 7] = max(arg0); @c[(char)arg0] = min(arg1); }",
        *keys,
        aggsize=1 << 12,
    )


@pytest.mark.parametrize("func", ["sum", "avg", "min", "max", "quantize"])
@pytest.mark.parametrize("key", ["", "[probefunc]", "[arg5]"])
@pytest.mark.parametrize("first", [0, 5, -5, (1 << 63) - 1, -(1 << 63)])
def test_the_first_datum(func: str, key: str, first: int) -> None:
    """Also one that equals the value that an empty store would show."""
    both = compare(f"fbt::: {{ @{key} = {func}(arg0); }}", (first,), aggsize=1 << 14)
    assert len(both.machine.table(0)) == 1
    assert Machine(f"fbt::: {{ @{key} = {func}(arg0); }}", aggsize=1 << 14).table(0) == {}


@settings(max_examples=30)
@given(ints)
def test_quantize_buckets(value: int) -> None:
    compare("fbt::: { @ = quantize(arg0); @k[arg1] = quantize(arg0); }", (value,), (-value,), aggsize=1 << 14)


def test_quantize_at_every_power_of_two() -> None:
    values = [s * ((1 << power) + d) for power in range(63) for s in (1, -1) for d in (-1, 0, 1)]
    compare("fbt::: { @ = quantize(arg0); }", *[(v,) for v in values], ((1 << 63) - 1,), (-(1 << 63),))


KEYS = {
    "8 bytes": "arg0",
    "16 bytes": "execname",
    "24 bytes": "execname, arg0",
    "32 bytes": "arg0, execname, arg1",
    "256 bytes": f'arg0 ? "{BIG}" : "{BIG[:-1]}"',
    "264 bytes": f'arg0 ? "{BIG}" : "", arg1',
    "800 bytes": f'arg0 ? "{BIG}" : execname, arg1, arg1 ? probefunc : "{BIG}", "z", execname',
    "probe": "probefunc, arg0",
    "two probes": "probefunc, probename, execname",
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("func", ["count()", "avg(arg1)", "min(arg0)"])
def test_keys_of_every_size(name: str, func: str) -> None:
    firings = [(n & 1, n >> 1) for n in range(6)] * 2
    for comm in (b"", b"bash", b"fifteen letters"):
        compare(f"fbt::: {{ @[{KEYS[name]}] = {func}; }}", *firings, comm=comm, aggsize=1 << 14)


def test_two_sites_two_values() -> None:
    functions = (Function(), Function(), Function())
    guest = Machine("fbt::: { @[probefunc] = sum(arg0); @m[probefunc] = max(arg0); @q = sum(1); }", functions)
    for n, times in ((0, 1), (2, 3)):
        for _ in range(times):
            guest.fire(n, rdi=-7)
    assert guest.table(0) == {("f0",): (-7,), ("f2",): (-21,)}
    assert guest.table(1) == {("f0",): (-7,), ("f2",): (-7,)}
    assert guest.table(2) == {(): (4,)}


def test_dense_becomes_hashed_when_it_would_be_too_large() -> None:
    """128 words for each of thousands of sites: then the sites are keys like others."""
    functions = (Function(), Function())
    guest = Machine("fbt::: { @[probefunc] = quantize(arg0); }", functions, aggsize=1 << 16, told_sites=5000)
    assert isinstance(guest.layout.stores[0], TableStore)
    guest.fire(0, rdi=0)
    guest.fire(1, rdi=1)
    guest.fire(1, rdi=1)
    assert {key: sum(words) for key, words in guest.table(0).items()} == {("f0",): 1, ("f1",): 2}
