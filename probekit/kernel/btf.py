"""Read BTF, the compact type information that the kernel carries in its memory.

Format (Documentation/bpf/btf.rst): a header, a type section and a string
section. A type is three words (name offset, ``info``, size or type) followed
by kind-specific words; its number is its position, counting from 1 (0 is
void). ``info`` is ``kind_flag << 31 | kind << 24 | vlen``. A module's BTF is
*split*: its numbers and string offsets go on where the kernel's end.

Loading makes one pass that only notes where each type starts and what it is
called (by string offset); a type object is made when it is asked for.
Everything is checked against the sections' ends: wrong data is
:class:`~probekit.errors.SymbolError`.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple, get_args

from probekit.errors import SymbolError
from probekit.kernel.text import clean_text
from probekit.kernel.types import (
    ArrayType,
    CType,
    Enumerator,
    EnumType,
    FloatType,
    FuncType,
    IntType,
    Lazy,
    Member,
    Param,
    PtrType,
    QualifiedType,
    Ref,
    StructType,
    TypedefType,
    VoidType,
)

__all__ = ("BTF_MAGIC", "Btf", "BtfIndex", "NamedKind")

BTF_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_MAX_TYPES = 1 << 22
_MAX_NAME = 512

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC = range(9, 16)
_FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(16, 20)

# Words after the three common ones: fixed by kind, and per element of vlen.
_FIXED = [0] * 32
_PER_ELEMENT = [0] * 32
for _kind, _words in ((_INT, 1), (_ARRAY, 3), (_VAR, 1), (_DECL_TAG, 1)):
    _FIXED[_kind] = _words
for _kind, _words in ((_STRUCT, 3), (_UNION, 3), (_ENUM, 2), (_FUNC_PROTO, 2), (_DATASEC, 3), (_ENUM64, 3)):
    _PER_ELEMENT[_kind] = _words
_LAST_KIND = _ENUM64
_MANY = 200  # searches for functions that take about as long as listing them all

NamedKind = Literal["struct", "union", "enum", "typedef", "func", "var", "int"]
_SPACES: dict[int, NamedKind] = {
    _STRUCT: "struct",
    _UNION: "union",
    _ENUM: "enum",
    _ENUM64: "enum",
    _TYPEDEF: "typedef",
    _FUNC: "func",
    _VAR: "var",
    _INT: "int",
    _FLOAT: "int",
}
_QUALIFIERS: dict[int, Literal["const", "volatile", "restrict"]] = {
    _VOLATILE: "volatile",
    _CONST: "const",
    _RESTRICT: "restrict",
}
_VOID = VoidType()


class BtfIndex(NamedTuple):
    """``starts``: where each type starts, in words. ``names``: per kind the type that bears each, by string offset.

    Of several types with one name the first is kept, as bpftool does.
    """

    starts: array[int]
    names: dict[NamedKind, dict[int, int]]

    def pack(self) -> bytes:
        """As bytes of this machine: the lengths of the columns, then the columns, all of 32 bits."""
        columns = [self.starts]
        for kind in get_args(NamedKind):
            columns += [array("I", self.names[kind].keys()), array("I", self.names[kind].values())]
        return b"".join([array("I", map(len, columns)).tobytes(), *(column.tobytes() for column in columns)])

    @classmethod
    def unpack(cls, data: bytes) -> BtfIndex:
        """What :meth:`pack` made; :class:`ValueError` for anything else."""
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


class Btf:
    """The types of the kernel, or (with ``base``) of one module. Immutable once loaded.

    ``index``: what another object with the same data had, which takes long to make.
    """

    def __init__(self, data: bytes, base: Btf | None = None, index: BtfIndex | None = None) -> None:
        types, strings = _sections(data)
        if base is None and strings[:1] not in (b"", b"\0"):
            raise SymbolError("BTF's string section does not begin with the empty string")
        self.data = data
        self._base = base
        self._strings = strings
        self._first_id = base.type_count if base else 1
        self._first_string = base.string_size if base else 0
        self._words = array("I", types)
        if index is not None and index.starts and index.starts[-1] + 3 > len(self._words):
            raise SymbolError("BTF and its index do not fit")
        self.index = index or _index(self._words)
        self._starts, self._names = self.index
        self._made: dict[int, CType] = {}
        self._lookups = 0
        self._functions: dict[str, int] | None = None

    @property
    def type_count(self) -> int:
        """One more than the highest type number."""
        return self._first_id + len(self._starts)

    @property
    def string_size(self) -> int:
        return self._first_string + len(self._strings)

    def struct(self, name: str) -> StructType:
        """``struct name``, or :class:`SymbolError`."""
        return self._record("struct", name)

    def union(self, name: str) -> StructType:
        return self._record("union", name)

    def find_struct(self, name: str) -> StructType | None:
        """``struct name`` or None: for features that some kernels lack."""
        found = self.find("struct", name)
        return found if isinstance(found, StructType) else None

    def enum(self, name: str) -> EnumType:
        found = self.find("enum", name)
        if not isinstance(found, EnumType):
            raise SymbolError(f"this kernel has no enum {name}")
        return found

    def typedef(self, name: str) -> TypedefType:
        found = self.find("typedef", name)
        if not isinstance(found, TypedefType):
            raise SymbolError(f"this kernel has no type {name}")
        return found

    def scalar(self, name: str) -> IntType | FloatType | None:
        """A basic type such as ``unsigned int`` by its exact name."""
        found = self.find("int", name)
        return found if isinstance(found, (IntType, FloatType)) else None

    def function(self, name: str) -> FuncType | None:
        """The prototype of the kernel function ``name``, or None when BTF does not have it."""
        found = self._find_function(name)
        return found if isinstance(found, FuncType) else None

    def _find_function(self, name: str) -> CType | None:
        """As :meth:`find`. Somebody who asks for very many has them listed: one search is long, a list is longer."""
        self._lookups += 1
        if self._lookups < _MANY:
            return self.find("func", name)
        if self._functions is None:
            self._functions = {self._string(offset): index for offset, index in self._names["func"].items()}
        index = self._functions.get(name)
        if index is not None:
            return self.type(self._first_id + index)
        return self._base._find_function(name) if self._base else None

    def variable(self, name: str) -> CType | None:
        """The type of a per-CPU variable (the only variables that BTF describes)."""
        return self.find("var", name)

    def constant(self, name: str) -> int | None:
        """The value of an enumerator, wherever it is declared; the first one wins."""
        found = self.enumerator(name)
        return found[0] if found is not None else None

    def enumerator(self, name: str) -> tuple[int, EnumType] | None:
        """The value of an enumerator and its enumeration, the first one that has it; or None.

        No type is made on the way but that one: the name's offset is looked for among the words.
        """
        offset = self._string_offset(name) if name and "\0" not in name else -1
        if offset < 0:
            return None
        for type_id in self._mentions(offset):
            made = self.type(type_id)
            if isinstance(made, EnumType):
                for item in made.values:
                    if item.name == name:
                        return item.value, made
        return self._base.enumerator(name) if self._base else None

    def _mentions(self, word: int) -> Iterator[int]:
        """The numbers of the enumerations that have this word among theirs, in order."""
        data, wanted = memoryview(self._words).cast("B").tobytes(), struct.pack("<I", word)
        at = data.find(wanted)
        while at >= 0:
            if at % 4 == 0:
                index = bisect_right(self._starts, at // 4) - 1
                if self._words[self._starts[index] + 1] >> 24 & 0x1F in (_ENUM, _ENUM64):
                    yield self._first_id + index
            at = data.find(wanted, at + 1)

    def names(self, kind: NamedKind) -> Iterator[str]:
        """Every name of one kind, the base's included."""
        if self._base:
            yield from self._base.names(kind)
        for offset in self._names[kind]:
            yield self._string(offset)

    def type(self, type_id: int) -> CType:
        """The type with this number."""
        if type_id == 0:
            return _VOID
        if type_id < self._first_id and self._base:
            return self._base.type(type_id)
        made = self._made.get(type_id)
        if made is None:
            made = self._made[type_id] = self._make(type_id)
        return made

    def _record(self, kind: Literal["struct", "union"], name: str) -> StructType:
        found = self.find(kind, name)
        if not isinstance(found, StructType):
            raise SymbolError(f"this kernel has no {kind} {name}")
        return found

    def find(self, kind: NamedKind, name: str) -> CType | None:
        """The first type of this kind and name, or None."""
        # Find the string, then the type that bears it: strings are unique in BTF.
        type_id = self._names[kind].get(self._string_offset(name)) if name and "\0" not in name else None
        if type_id is not None:
            return self.type(self._first_id + type_id)
        return self._base.find(kind, name) if self._base else None

    def _string_offset(self, name: str) -> int:
        """The offset of a string, here or in the base (which a module's own types use too); -1 when absent."""
        wanted = name.encode() + b"\0"
        # A module's strings have no leading empty one.
        at = 0 if self._strings.startswith(wanted) else self._strings.find(b"\0" + wanted) + 1
        if at or self._strings.startswith(wanted):
            return self._first_string + at
        return self._base._string_offset(name) if self._base else -1

    def _string(self, offset: int) -> str:
        if offset < self._first_string and self._base:
            return self._base._string(offset)
        offset -= self._first_string
        if not 0 <= offset < len(self._strings):
            raise SymbolError(f"BTF string {offset:#x} is outside of the string section")
        end = self._strings.find(b"\0", offset, offset + _MAX_NAME)
        raw = self._strings[offset : end if end >= 0 else offset + _MAX_NAME]
        return clean_text(raw)

    def _start(self, type_id: int) -> int:
        index = type_id - self._first_id
        if not 0 <= index < len(self._starts):
            raise SymbolError(f"BTF type {type_id} does not exist")
        return self._starts[index]

    def _kind(self, type_id: int) -> int:
        return self._words[self._start(type_id) + 1] >> 24 & 0x1F

    def _ref(self, type_id: int) -> Ref:
        made = self._made.get(type_id)
        return made if made is not None else Lazy((id(self), type_id), partial(self.type, type_id))

    def _make(self, type_id: int) -> CType:
        at = self._start(type_id)
        words = self._words
        name, info, size = words[at], words[at + 1], words[at + 2]
        kind, vlen, flag = info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31)
        if kind in (_STRUCT, _UNION):
            return self._make_record(at, self._string(name), kind, vlen, flag)
        if kind in _QUALIFIERS:
            return QualifiedType(_QUALIFIERS[kind], self._ref(size))
        if kind == _PTR:
            return self._make_pointer(size)
        if kind == _INT:
            encoding = words[at + 3]
            bits = encoding >> 24 & 0xF
            return IntType(self._string(name), size, bool(bits & 1), bool(bits & 2), bool(bits & 4))
        if kind == _TYPEDEF:
            return TypedefType(self._string(name), self._ref(size))
        if kind == _ARRAY:
            return ArrayType(self._ref(words[at + 3]), words[at + 5])
        if kind in (_ENUM, _ENUM64):
            return self._make_enum(at, self._string(name), wide=kind == _ENUM64, signed=flag)
        if kind == _FUNC:
            return self._make_function(self._string(name), size)
        if kind == _FUNC_PROTO:
            return self._make_prototype(at, "", vlen)
        if kind == _FWD:
            return StructType(self._string(name), "union" if flag else "struct", 0, (), complete=False)
        if kind == _FLOAT:
            return FloatType(self._string(name), size)
        if kind in (_VAR, _TYPE_TAG):
            # Both only stand before another type; a loop of them is cut.
            return self._follow(size)
        return _VOID

    def _follow(self, type_id: int) -> CType:
        for _ in range(16):
            if type_id == 0 or type_id < self._first_id or self._kind(type_id) not in (_VAR, _TYPE_TAG):
                return self.type(type_id)
            type_id = self._words[self._start(type_id) + 2]
        raise SymbolError("BTF type tags form a loop")

    def _make_pointer(self, type_id: int) -> PtrType:
        tag = ""
        for _ in range(16):
            if type_id < self._first_id or self._kind(type_id) != _TYPE_TAG:
                return PtrType(self._ref(type_id), tag)
            at = self._start(type_id)
            tag, type_id = tag or self._string(self._words[at]), self._words[at + 2]
        raise SymbolError("BTF type tags form a loop")

    def _make_record(self, at: int, name: str, kind: int, vlen: int, flag: bool) -> StructType:
        words = self._words
        members = []
        for item in range(at + 3, at + 3 + 3 * vlen, 3):
            where = words[item + 2]
            # kind_flag: offset word is bit-field size << 24 | bit offset (commit 9d5f9f701b18, v5.0).
            bits = where >> 24 if flag else 0
            offset = where & 0xFFFFFF if flag else where
            members.append(Member(self._string(words[item]), self._ref(words[item + 1]), offset, bits or None))
        return StructType(name, "struct" if kind == _STRUCT else "union", words[at + 2], tuple(members))

    def _make_enum(self, at: int, name: str, *, wide: bool, signed: bool) -> EnumType:
        words = self._words
        vlen = words[at + 1] & 0xFFFF
        step = 3 if wide else 2
        bits = 64 if wide else 32
        values = []
        for item in range(at + 3, at + 3 + step * vlen, step):
            value = words[item + 1] | (words[item + 2] << 32 if wide else 0)
            # Before kind_flag meant "signed" (commit 6089fb325cf7, v6.0) a 32-bit enumerator was always signed.
            if (signed or not wide) and value >> (bits - 1):
                value -= 1 << bits
            values.append(Enumerator(self._string(words[item]), value))
        return EnumType(name, words[at + 2], signed or any(item.value < 0 for item in values), tuple(values))

    def _make_function(self, name: str, proto: int) -> FuncType:
        if proto < self._first_id and self._base:
            made = self._base.type(proto)
            if isinstance(made, FuncType):
                return FuncType(name, made.result, made.params, made.variadic)
        elif self._kind(proto) == _FUNC_PROTO:
            at = self._start(proto)
            return self._make_prototype(at, name, self._words[at + 1] & 0xFFFF)
        raise SymbolError(f"BTF function {name} has no prototype")

    def _make_prototype(self, at: int, name: str, vlen: int) -> FuncType:
        words = self._words
        pairs = [(words[item], words[item + 1]) for item in range(at + 3, at + 3 + 2 * vlen, 2)]
        # A last parameter without name and type is "..." (btf.rst, BTF_KIND_FUNC_PROTO).
        variadic = bool(pairs) and pairs[-1] == (0, 0)
        params = tuple(Param(self._string(n), self._ref(t)) for n, t in (pairs[:-1] if variadic else pairs))
        return FuncType(name, self._ref(words[at + 2]), params, variadic)


def _sections(data: bytes) -> tuple[bytes, bytes]:
    """The type and string sections, checked."""
    if len(data) < _HEADER.size:
        raise SymbolError("BTF is shorter than its header")
    magic, version, _flags, header, type_at, type_size, string_at, string_size = _HEADER.unpack_from(data)
    if magic != BTF_MAGIC or version != 1:
        raise SymbolError(f"not BTF (magic {magic:#x}, version {version})")
    type_at, string_at = type_at + header, string_at + header
    if header < _HEADER.size or type_size % 4 or type_at + type_size > len(data) or string_at + string_size > len(data):
        raise SymbolError("BTF's sections do not fit its size")
    strings = data[string_at : string_at + string_size]
    if strings[-1:] not in (b"", b"\0"):
        raise SymbolError("BTF's string section is not NUL-terminated")
    return data[type_at : type_at + type_size], strings


def _index(words: array[int]) -> BtfIndex:
    """One pass over all types; raises :class:`SymbolError` for what are none."""
    starts: list[int] = []
    names: dict[NamedKind, dict[int, int]] = {space: {} for space in _SPACES.values()}
    spaces = [names[_SPACES[kind]] if kind in _SPACES else None for kind in range(32)]
    fixed, per_element = _FIXED, _PER_ELEMENT
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
            elif not 0 < kind <= _LAST_KIND:
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
