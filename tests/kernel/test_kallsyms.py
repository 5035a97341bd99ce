"""kallsyms: every historical layout decodes to what was encoded; damaged ones end in SymbolError, soon."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probekit.errors import SymbolError
from probekit.kernel import kallsyms
from probekit.kernel.memory import MemoryCopy

from .fakes import BASE, STYLES, KallsymsStyle, encode_kallsyms, make_rows

START = BASE + 0x1000000


def _rows_of(raw: kallsyms.RawSymbols) -> list[tuple[int, str, str]]:
    return list(zip(raw.addrs, raw.types, raw.names, strict=True))


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 32), count=st.integers(300, 900), lead=st.integers(8, 3000))
def test_round_trip(style: KallsymsStyle, seed: int, count: int, lead: int) -> None:
    rows = make_rows(seed, count, percpu=style.encoding == "absolute_percpu", long_names=style.big)
    image = encode_kallsyms(rows, style, start=START, lead=lead, seed=seed)
    raw = kallsyms.load(image, BASE)
    assert _rows_of(raw) == rows
    assert raw.encoding == style.encoding


@pytest.mark.parametrize("count", [257, 511, 512, 513, 768, 769])
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_block_boundaries(style: KallsymsStyle, count: int) -> None:
    rows = make_rows(count, count, percpu=False, long_names=False)
    assert _rows_of(kallsyms.load(encode_kallsyms(rows, style, start=START), BASE)) == rows


def _intact(style: KallsymsStyle) -> MemoryCopy:
    return encode_kallsyms(make_rows(7, 900, percpu=False, long_names=False), style, start=START)


_INTACT = {style.name: _intact(style) for style in STYLES}


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(
    style=st.sampled_from([style.name for style in STYLES]),
    edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), min_size=1, max_size=20),
    cut=st.one_of(st.none(), st.integers(0, 1 << 16)),
)
def test_damage_is_symbol_error(style: str, edits: list[tuple[int, bytes]], cut: int | None) -> None:
    data = bytearray(_INTACT[style].data)
    for at, new in edits:
        at %= len(data) - 8
        data[at : at + len(new)] = new
    try:
        raw = kallsyms.load(MemoryCopy(START, bytes(data[: cut and cut % len(data)])), BASE)
    except SymbolError:
        return
    assert list(raw.addrs) == sorted(raw.addrs)


@settings(max_examples=60, deadline=3000)
@given(seed=st.integers(0, 1 << 32))
def test_bait_everywhere_ends_soon(seed: int) -> None:
    """Zero words, digits and ascending words all over must not make the search run away."""
    rng = random.Random(seed)
    digits = b"".join(b"%d\0" % i for i in range(10))
    pieces = [digits, bytes(64), b"".join((600 * i).to_bytes(4, "little") for i in range(300)), rng.randbytes(99)]
    data = b"".join(rng.choice(pieces) for _ in range(400)) + _INTACT["v6.4"].data[200:]
    with pytest.raises(SymbolError):
        kallsyms.load(MemoryCopy(START, data), BASE + 0x200000)


def test_a_wrong_base_is_refused() -> None:
    with pytest.raises(SymbolError, match="no address table fits"):
        kallsyms.load(_INTACT["v6.4"], BASE + (2 << 20))


@pytest.mark.parametrize("data", [b"", bytes(4096), b"\xff" * 4096])
def test_memory_without_a_symbol_table_is_refused(data: bytes) -> None:
    with pytest.raises(SymbolError, match="no kernel symbol table"):
        kallsyms.load(MemoryCopy(START, data), BASE)
