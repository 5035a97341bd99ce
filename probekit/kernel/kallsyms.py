"""Decode the kernel's own symbol table (kallsyms) from a copy of its memory.

The tables, as ``scripts/kallsyms.c`` writes them (all little-endian):

===============  =============================================================
names            per symbol: length (ULEB128, two bytes at most), then that
                 many token codes; the first character is nm's type letter
markers          u32 offset into *names* of every 256th symbol
token_table      256 NUL-terminated strings, one per code
token_index      u16 offset into *token_table* of every code
offsets          s32 per symbol
relative_base    u64 (relocated by KASLR, so addresses come out live)
seqs_of_names    3 (or 4) bytes per symbol, sorted by name
===============  =============================================================

Nothing is looked up by version. The token table can be recognized (the digits
are always tokens of their own: ``0\\0 1\\0 .. 9\\0``), the index gives its exact
start, the markers precede it, the names precede the markers, and the count precedes
the names. The place and the encoding of the offsets are tried out, and accepted
only if every symbol is in ascending order and ``_text`` is the base:

* v4.6: offsets, relative_base, num_syms, names, markers, tokens
* v6.2: seqs_of_names between markers and tokens (commit 60443c88f3a8)
* v6.4: num_syms, names, markers, tokens, offsets, relative_base, seqs
  (commit 404bad70fcf7)
* v6.1: lengths of two bytes (commit 73bbb94466fd)
* "absolute per-CPU": offset >= 0 is an absolute value, negative is
  ``relative_base - 1 - offset`` (commit 2213e9a66bb8, v4.6); plain unsigned
  offsets without it
* v7.0: offsets relative to their own place, no relative_base
  (commit a081b5789255)
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from probekit.errors import SymbolError
from probekit.interruption import check_interrupted
from probekit.kernel.memory import MemoryCopy

__all__ = ("Encoding", "KallsymsLayout", "RawSymbols", "decode", "find_layout", "load")

Encoding = Literal["absolute_percpu", "unsigned", "place"]
"""How the offsets are encoded; ``place``: relative to their own place."""

_MAX_SYMBOLS = 1 << 20
_MAX_NAME = 1024
_MAX_CANDIDATES = 64
_MAX_ZERO_WORDS = 4096
_PRINTABLE = bytes(range(0x21, 0x7F))
_DIGITS = b"".join(b"%c\0" % code for code in range(0x30, 0x3A))


@dataclass(frozen=True, slots=True)
class KallsymsLayout:
    """Where the tables are: byte offsets into a copy of memory (not addresses)."""

    num_syms: int
    """How many symbols there are: a count, not an offset."""
    names: int
    """Offset of the names."""
    markers: int
    """Offset of the markers."""
    token_table: int
    """Offset of the tokens."""
    token_index: int
    """Offset of the tokens' index."""
    big: bool
    """Whether lengths may take two bytes."""


@dataclass(frozen=True, slots=True)
class RawSymbols:
    """The whole table in kallsyms order, which is by address."""

    addrs: array[int] = field(repr=False)
    """The address of each symbol."""
    names: list[str] = field(repr=False)
    """The name of each symbol."""
    types: str = field(repr=False)
    """One type letter of nm for each symbol."""
    encoding: Encoding = "absolute_percpu"
    """How the kernel's own table encodes the addresses."""

    def __len__(self) -> int:
        return len(self.names)


def load(copy: MemoryCopy, base: int) -> RawSymbols:
    """Find and decode the table in ``copy``; ``base``: the address of ``_text``. Raises :class:`SymbolError`."""
    return decode(copy, find_layout(copy), base)


def find_layout(copy: MemoryCopy) -> KallsymsLayout:
    """Find the tables by structure alone. Raises :class:`SymbolError` when there are none."""
    data = copy.data
    tries = 0
    for token_table, token_index in _token_tables(data):
        for markers, count in _marker_runs(data, token_table):
            tries += 1
            if tries > _MAX_CANDIDATES:
                raise SymbolError("too many things in guest memory look like a symbol table; none of them is one")
            found = _find_names(data, markers, count)
            if found is not None:
                names, num_syms, big = found
                return KallsymsLayout(num_syms, names, markers, token_table, token_index, big)
    raise SymbolError(
        "no kernel symbol table (kallsyms) in guest memory",
        hint="the kernel may be built without CONFIG_KALLSYMS: give its vmlinux or System.map with --symbols",
    )


def _token_tables(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (token_table, token_index) pairs that agree with each other."""
    at = -1
    for _ in range(_MAX_CANDIDATES):
        at = data.find(_DIGITS, at + 1)
        if at < 0:
            return
        end = at
        for _ in range(0x30, 0x100):
            end = data.find(b"\0", end, end + _MAX_NAME) + 1
            if not end:
                break
        if not end:
            continue
        for token_index in dict.fromkeys(((end + 1) & -2, (end + 3) & -4, (end + 7) & -8)):
            index = _index(data, token_index)
            if index is not None and _index_fits(data, at - index[0x30], index):
                yield at - index[0x30], token_index
                break


def _index(data: bytes, at: int) -> array[int] | None:
    raw = data[at : at + 512]
    if len(raw) < 512:
        return None
    index = array("H", raw)
    return index if index[0] == 0 else None


def _index_fits(data: bytes, start: int, index: array[int]) -> bool:
    """Tell whether every index entry is where the previous token's NUL ends."""
    if start < 0:
        return False
    ends = [*index[1:], None]
    for begin, end in zip(index, ends, strict=True):
        nul = data.find(b"\0", start + begin, start + begin + _MAX_NAME)
        if nul < 0 or (end is not None and nul + 1 - start != end):
            return False
    return True


def _marker_runs(data: bytes, token_table: int) -> Iterator[tuple[int, int]]:
    """Yield (start, count) of ascending u32 runs that begin with 0 and could be the markers before ``token_table``.

    Between the markers and the tokens there is only padding, or (v6.2, v6.3)
    seqs_of_names of 3 or 4 bytes per symbol; how many markers there must be
    then follows from the distance.
    """
    at = token_table
    floor = max(0, token_table - (5 * _MAX_SYMBOLS))
    for _ in range(_MAX_ZERO_WORDS):
        at = data.rfind(b"\0\0\0\0", floor, at + 3)
        if at < 0:
            return
        if at & 3:
            # Zero bytes that only straddle a word; an aligned zero word may begin up to 3 bytes below.
            continue
        distance = token_table - at
        counts = {distance // 4, (distance - 4) // 4}
        for stride in (3, 4):
            guess = distance // (4 + 256 * stride)
            counts |= {guess, guess + 1, guess + 2}
        for count in sorted(counts, reverse=True):
            if 2 <= count <= _MAX_SYMBOLS // 256 and 4 * count <= distance and _ascending(data, at, count):
                yield at, count


def _ascending(data: bytes, at: int, count: int) -> bool:
    """Tell whether these may be markers: they start at 0 and rise by at least two bytes a symbol (length, letter)."""
    previous = int.from_bytes(data[at + 4 : at + 8], "little")
    if not 512 <= previous <= 256 * _MAX_NAME:
        return False
    words = array("I", data[at : at + 4 * count])
    return all(512 <= b - a <= 256 * _MAX_NAME for a, b in pairwise(words))


def _find_names(data: bytes, markers: int, count: int) -> tuple[int, int, bool] | None:
    """Return (names, num_syms, big) that fit these markers, or None.

    ``num_syms`` stands just before the names, padded to 8 bytes (4 accepted).
    """
    words = array("I", data[markers : markers + 4 * count])
    last = words[-1]
    highest = (markers - last - 2) & -4
    lowest = max(8, highest - 256 * _MAX_NAME)
    low, high = 256 * (count - 1), 256 * count
    if highest < lowest:
        return None
    numbers = array("I", data[(lowest & -4) - 8 : highest & -4])
    for names in range(highest & -4, (lowest & -4) - 1, -4):
        at = (names - (lowest & -4)) // 4
        for num_syms in (numbers[at], numbers[at + 1]):
            if low < num_syms <= high:
                for big in (True, False):
                    if _blocks_fit(data, names, words, num_syms, markers, big=big):
                        return names, num_syms, big
    return None


def _blocks_fit(data: bytes, names: int, words: array[int], num_syms: int, limit: int, *, big: bool) -> bool:
    """Tell whether the first block ends at the second marker, and the last one just before the markers."""
    if _skip(data, names, 256, limit, big=big) != names + words[1]:
        return False
    end = _skip(data, names + words[-1], num_syms - 256 * (len(words) - 1), limit, big=big)
    return end is not None and limit - end < 8 and not any(data[end:limit])


def _skip(data: bytes, at: int, count: int, limit: int, *, big: bool) -> int | None:
    """Return the offset after ``count`` names, or None when they do not fit."""
    for _ in range(count):
        if at + 2 > limit:
            return None
        length = data[at]
        at += 1
        if big and length & 0x80:
            length = (length & 0x7F) | data[at] << 7
            at += 1
        if not length:
            return None
        at += length
    return at if at <= limit else None


def decode(copy: MemoryCopy, layout: KallsymsLayout, base: int) -> RawSymbols:
    """Decode and check all symbols. ``base``: the address that ``_text`` must have.

    Raises :class:`SymbolError` when names and addresses do not fit each other.
    """
    names = _decode_names(copy.data, layout)
    types = "".join([name[0] for name in names])
    names = [name[1:] for name in names]
    anchor = _anchor(names)
    for at, encoding, relative_base in _offset_tables(copy, layout):
        offsets = array("i", copy.data[at : at + 4 * layout.num_syms])
        if len(offsets) < layout.num_syms:
            continue
        if _address(offsets, anchor, encoding, relative_base, copy.start + at) != base:
            continue
        addrs = _addresses(offsets, encoding, relative_base, copy.start + at)
        if addrs is not None:
            return RawSymbols(addrs=addrs, names=names, types=types, encoding=encoding)
    raise SymbolError(
        f"the kernel's symbol names were found but no address table fits them (base {base:#x})",
        hint="this kernel's kallsyms layout is unknown: give its System.map with --symbols",
    )


def _anchor(names: list[str]) -> int:
    """Return the index of a symbol that must be at the base."""
    for name in ("_text", "_stext"):
        if name in names:
            return names.index(name)
    raise SymbolError("the guest's symbol table has neither _text nor _stext: not a kernel's")


def _decode_names(data: bytes, layout: KallsymsLayout) -> list[str]:
    """Return type letter and name of every symbol, checked block by block against the markers."""
    index = array("H", data[layout.token_index : layout.token_index + 512])
    tokens = []
    for begin in index:
        start = layout.token_table + begin
        raw = data[start : data.index(b"\0", start)]
        if raw.translate(None, _PRINTABLE):
            raise SymbolError("the guest's symbol names hold unprintable bytes")
        tokens.append(raw.decode("ascii"))
    count = (layout.num_syms + 255) // 256
    words = array("I", data[layout.markers : layout.markers + 4 * count])
    stream = data[layout.names : layout.markers]
    token = tokens.__getitem__
    join = "".join
    names: list[str] = []
    append = names.append
    high_bit = 0x80 if layout.big else 0x100
    at = 0
    for block, mark in enumerate(words):
        check_interrupted()
        if at != mark:
            raise SymbolError(f"symbol names and markers disagree at symbol {256 * block}")
        for _ in range(min(256, layout.num_syms - 256 * block)):
            try:
                length = stream[at]
                at += 1
                if length & high_bit:
                    length = (length & 0x7F) | stream[at] << 7
                    at += 1
            except IndexError:
                raise SymbolError("the guest's symbol names run past their end") from None
            append(join(map(token, stream[at : at + length])))
            at += length
    if at > len(stream):
        raise SymbolError("the guest's symbol names run past their end")
    shortest, longest = min(map(len, names)), max(map(len, names))
    if shortest < 2 or longest > _MAX_NAME:
        raise SymbolError(f"symbol names of {shortest} to {longest} characters: not a kernel's symbol table")
    return names


def _offset_tables(copy: MemoryCopy, layout: KallsymsLayout) -> Iterator[tuple[int, Encoding, int]]:
    """Yield (position, encoding, relative base) of every place where the offsets could be."""
    data, size = copy.data, 4 * layout.num_syms
    after = layout.token_index + 512
    starts = [(at, (at + size + pad) & -(pad + 1)) for at in _aligned_up(after) for pad in (7, 3)]
    before_count = [layout.names - 8, layout.names - 4]
    for count_at in before_count:
        for base_at in {(count_at - 8) & -8, count_at - 8}:
            starts += [(base_at - size - pad, base_at) for pad in (0, 4)]
    for at, base_at in dict.fromkeys(starts):
        if at >= 0 and at + size <= len(data) and 0 <= base_at <= len(data) - 8:
            relative_base = int.from_bytes(data[base_at : base_at + 8], "little")
            if relative_base >> 63:
                yield at, "absolute_percpu", relative_base
                yield at, "unsigned", relative_base
    for at in _aligned_up(after):
        if at + size <= len(data):
            yield at, "place", 0


def _aligned_up(at: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(((at + 3) & -4, (at + 7) & -8)))


def _address(offsets: array[int], index: int, encoding: Encoding, relative_base: int, place: int) -> int:
    """Return the address of one symbol."""
    offset = offsets[index]
    if encoding == "place":
        return place + 4 * index + offset
    if encoding == "unsigned":
        return relative_base + (offset & 0xFFFFFFFF)
    return offset if offset >= 0 else relative_base - 1 - offset


def _addresses(offsets: array[int], encoding: Encoding, relative_base: int, place: int) -> array[int] | None:
    """Return all addresses, or None unless they ascend and fit 64 bits."""
    if encoding == "place":
        values = [at + offset for at, offset in zip(range(place, place + 4 * len(offsets), 4), offsets, strict=True)]
    elif encoding == "unsigned":
        values = [relative_base + (offset & 0xFFFFFFFF) for offset in offsets]
    else:
        top = relative_base - 1
        values = [offset if offset >= 0 else top - offset for offset in offsets]
    if min(values) < 0 or max(values) >= 1 << 64:
        return None
    addrs = array("Q", values)
    return addrs if values == sorted(values) else None
