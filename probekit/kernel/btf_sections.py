"""Check the two sections of BTF, and index where each type starts and what it is called.

Format (Documentation/bpf/btf.rst): a header, a type section and a string
section. A type is three words (name offset, ``info``, size or type) followed
by kind-specific words; its number is its position, counting from 1 (0 is
void). ``info`` is ``kind_flag << 31 | kind << 24 | vlen``. A module's BTF is
*split*: its numbers and string offsets go on where the kernel's end.

:mod:`probekit.kernel.btf` makes type objects from this.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from enum import IntEnum
from typing import Literal, NamedTuple, get_args

from probekit.errors import SymbolError
from probekit.kernel.escape import escape_unprintable

__all__ = ("BtfIndex", "BtfKind", "BtfSections", "NamedKind", "kind_of")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_MAX_TYPES = 1 << 22
_MAX_NAME = 512


class BtfKind(IntEnum):
    """``BTF_KIND_*`` (include/uapi/linux/btf.h)."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Words after the three common ones: fixed by kind, and per element of vlen.
_FIXED = [0] * 32
_PER_ELEMENT = [0] * 32
for _kind, _count in ((BtfKind.INT, 1), (BtfKind.ARRAY, 3), (BtfKind.VAR, 1), (BtfKind.DECL_TAG, 1)):
    _FIXED[_kind] = _count
for _kind, _count in (
    (BtfKind.STRUCT, 3),
    (BtfKind.UNION, 3),
    (BtfKind.ENUM, 2),
    (BtfKind.FUNC_PROTO, 2),
    (BtfKind.DATASEC, 3),
    (BtfKind.ENUM64, 3),
):
    _PER_ELEMENT[_kind] = _count
_LAST_KIND = max(BtfKind)

NamedKind = Literal["struct", "union", "enum", "typedef", "func", "var", "int"]
"""The name spaces of types: C's, and those of functions, variables and basic types."""

_NAME_SPACES: dict[int, NamedKind] = {
    BtfKind.STRUCT: "struct",
    BtfKind.UNION: "union",
    BtfKind.ENUM: "enum",
    BtfKind.ENUM64: "enum",
    BtfKind.TYPEDEF: "typedef",
    BtfKind.FUNC: "func",
    BtfKind.VAR: "var",
    BtfKind.INT: "int",
    BtfKind.FLOAT: "int",
}


def kind_of(info: int) -> int:
    """Return the kind in a type's ``info`` word."""
    return info >> 24 & 0x1F


class BtfIndex(NamedTuple):
    """Where types start and what they are called. It takes long to make, so it is kept on disk."""

    starts: array[int]
    """Where each type starts, in words of the type section."""
    names: dict[NamedKind, dict[int, int]]
    """For each name space, the type's position by the string offset of its name.

    Of several types with one name the first is kept, as bpftool does.
    """

    def pack(self) -> bytes:
        """Return the index as bytes: the lengths of the columns, then the columns, all of 32 bits in host order."""
        columns = [self.starts]
        for kind in get_args(NamedKind):
            columns += [array("I", self.names[kind].keys()), array("I", self.names[kind].values())]
        return b"".join([array("I", map(len, columns)).tobytes(), *(column.tobytes() for column in columns)])

    @classmethod
    def unpack(cls, data: bytes) -> BtfIndex:
        """Read what :meth:`pack` made. Raises :class:`ValueError` for anything else."""
        words = array("I", data)
        at = 1 + 2 * len(get_args(NamedKind))
        columns = []
        for size in words[:at]:
            columns.append(words[at : at + size])
            at += size
        if at != len(words):
            raise ValueError("not the index of BTF")
        starts, *named = columns
        pairs = zip(named[::2], named[1::2], strict=True)
        return cls(
            starts, {kind: dict(zip(*pair, strict=True)) for kind, pair in zip(get_args(NamedKind), pairs, strict=True)}
        )


class BtfSections:
    """Holds types as words and names as strings."""

    def __init__(self, data: bytes, base: BtfSections | None = None, index: BtfIndex | None = None) -> None:
        """Check and index the sections.

        ``base``: the kernel's sections, for a module's. ``index``: the index that another object made of the same data.
        Raises :class:`SymbolError` for data that is no BTF.
        """
        types, strings = _split(data)
        if base is None and strings[:1] not in (b"", b"\0"):
            raise SymbolError("BTF's string section does not begin with the empty string")
        self._base = base
        self._strings = strings
        self._first_string = base.string_size if base else 0
        self.first_id = base.type_count if base else 1
        self.words = array("I", types)
        if index is not None and index.starts and index.starts[-1] + 3 > len(self.words):
            raise SymbolError("BTF and its index do not fit")
        self.index = index or _make_index(self.words)
        self._starts = self.index.starts

    @property
    def type_count(self) -> int:
        """One more than the highest type number."""
        return self.first_id + len(self._starts)

    @property
    def string_size(self) -> int:
        """One more than the highest string offset, the base's included."""
        return self._first_string + len(self._strings)

    def string(self, offset: int) -> str:
        """Return the string at an offset, escaped and cut at 512 bytes. Raises :class:`SymbolError`."""
        if offset < self._first_string and self._base:
            return self._base.string(offset)
        offset -= self._first_string
        if not 0 <= offset < len(self._strings):
            raise SymbolError(f"BTF string {offset:#x} is outside of the string section")
        end = self._strings.find(b"\0", offset, offset + _MAX_NAME)
        raw = self._strings[offset : end if end >= 0 else offset + _MAX_NAME]
        return escape_unprintable(raw)

    def string_offset(self, name: str) -> int:
        """Return the offset of a string, here or in the base (which a module's own types use too); -1 when absent."""
        wanted = name.encode() + b"\0"
        # A module's strings have no leading empty one.
        at = 0 if self._strings.startswith(wanted) else self._strings.find(b"\0" + wanted) + 1
        if at or self._strings.startswith(wanted):
            return self._first_string + at
        return self._base.string_offset(name) if self._base else -1

    def start(self, type_id: int) -> int:
        """Return where a type starts in ``words``. Raises :class:`SymbolError` when it is not of these sections."""
        index = type_id - self.first_id
        if not 0 <= index < len(self._starts):
            raise SymbolError(f"BTF type {type_id} does not exist")
        return self._starts[index]

    def kind(self, type_id: int) -> int:
        """Return a type's kind. Raises :class:`SymbolError` as :meth:`start`."""
        return kind_of(self.words[self.start(type_id) + 1])

    def enums_with_word(self, word: int) -> Iterator[int]:
        """Yield the numbers of the enumerations that have this word among theirs, in order."""
        data, wanted = memoryview(self.words).cast("B").tobytes(), struct.pack("<I", word)
        at = data.find(wanted)
        while at >= 0:
            if at % 4 == 0:
                index = bisect_right(self._starts, at // 4) - 1
                if kind_of(self.words[self._starts[index] + 1]) in (BtfKind.ENUM, BtfKind.ENUM64):
                    yield self.first_id + index
            at = data.find(wanted, at + 1)


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the type and string sections, checked against the data's end."""
    if len(data) < _HEADER.size:
        raise SymbolError("BTF is shorter than its header")
    magic, version, _flags, header, type_at, type_size, string_at, string_size = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != 1:
        raise SymbolError(f"not BTF (magic {magic:#x}, version {version})")
    type_at, string_at = type_at + header, string_at + header
    if header < _HEADER.size or type_size % 4 or type_at + type_size > len(data) or string_at + string_size > len(data):
        raise SymbolError("BTF's sections do not fit its size")
    strings = data[string_at : string_at + string_size]
    if strings[-1:] not in (b"", b"\0"):
        raise SymbolError("BTF's string section is not NUL-terminated")
    return data[type_at : type_at + type_size], strings


def _make_index(words: array[int]) -> BtfIndex:
    """Make the index in one pass over all types. Raises :class:`SymbolError` for types that are damaged."""
    starts: list[int] = []
    names: dict[NamedKind, dict[int, int]] = {space: {} for space in _NAME_SPACES.values()}
    spaces = [names[_NAME_SPACES[kind]] if kind in _NAME_SPACES else None for kind in range(32)]
    fixed, per_element, last_kind = _FIXED, _PER_ELEMENT, int(_LAST_KIND)
    at, end, number = 0, len(words), 0
    try:
        while at < end:
            info = words[at + 1]
            kind = info >> 24 & 0x1F
            starts.append(at)
            space = spaces[kind]
            if space is not None:
                name = words[at]
                if name and name not in space:
                    space[name] = number
            elif not 0 < kind <= last_kind:
                raise SymbolError(f"BTF type of unknown kind {kind}")
            number += 1
            at += 3 + fixed[kind] + per_element[kind] * (info & 0xFFFF)
    except IndexError:
        raise SymbolError("BTF's last type is cut off") from None
    if at != end:
        raise SymbolError("BTF's last type is cut off")
    if number > _MAX_TYPES:
        raise SymbolError(f"BTF claims {number} types")
    return BtfIndex(array("I", starts), names)
