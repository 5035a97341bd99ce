"""Make C types from BTF, the compact type information that the kernel carries in its memory.

Loading makes one pass that only notes where each type starts and what it is
called (:mod:`probekit.kernel.btf_sections` describes the format); a type object
is made when it is asked for. Everything is checked against the sections' ends:
wrong data is a :class:`~probekit.errors.SymbolError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from probekit.errors import SymbolError
from probekit.kernel.btf_sections import BtfIndex, BtfKind, BtfSections, NamedKind, kind_of
from probekit.kernel.c_types import (
    CArray,
    CEnum,
    CEnumerator,
    CFloat,
    CFunction,
    CInt,
    CMember,
    CParam,
    CPointer,
    CQualified,
    CStruct,
    CType,
    CTypedef,
    CVoid,
    Lazy,
    Ref,
)

__all__ = ("Btf",)

_MANY_LOOKUPS = 200  # searches for functions that take about as long as listing them all
_MAX_TAGS = 16  # type tags before one type

_QUALIFIERS: dict[int, Literal["const", "volatile", "restrict"]] = {
    BtfKind.VOLATILE: "volatile",
    BtfKind.CONST: "const",
    BtfKind.RESTRICT: "restrict",
}
_VOID = CVoid()


class Btf:
    """The types of the kernel or of one module. They do not change after loading."""

    def __init__(self, data: bytes, base: Btf | None = None, index: BtfIndex | None = None) -> None:
        """Load types.

        ``data``: all bytes, header included. ``base``: the kernel's types, for a module's. ``index``: the index that
        another object made of the same data, which saves time. Raises :class:`SymbolError` for data that is no BTF.
        """
        self.data = data
        self._base = base
        self._sections: BtfSections = BtfSections(data, base._sections if base else None, index)
        self._words = self._sections.words
        self._first_id = self._sections.first_id
        self._string = self._sections.string
        self._made: dict[int, CType] = {}
        self._lookups = 0
        self._functions: dict[str, int] | None = None

    @property
    def index(self) -> BtfIndex:
        """Where types start and what they are called, for another object with the same data."""
        return self._sections.index

    @property
    def type_count(self) -> int:
        """One more than the highest type number."""
        return self._sections.type_count

    @property
    def string_size(self) -> int:
        """One more than the highest string offset, the base's included."""
        return self._sections.string_size

    def struct(self, name: str) -> CStruct:
        """Return ``struct name``. Raises :class:`SymbolError` when there is none."""
        found = self.find("struct", name)
        if not isinstance(found, CStruct):
            raise SymbolError(f"this kernel has no struct {name}")
        return found

    def find_struct(self, name: str) -> CStruct | None:
        """Return ``struct name`` or None: for features that some kernels lack."""
        found = self.find("struct", name)
        return found if isinstance(found, CStruct) else None

    def typedef(self, name: str) -> CTypedef:
        """Return the typedef ``name``. Raises :class:`SymbolError` when there is none."""
        found = self.find("typedef", name)
        if not isinstance(found, CTypedef):
            raise SymbolError(f"this kernel has no type {name}")
        return found

    def function(self, name: str) -> CFunction | None:
        """Return the prototype of the kernel function ``name``, or None when BTF does not have it."""
        found = self._find_function(name)
        return found if isinstance(found, CFunction) else None

    def _find_function(self, name: str) -> CType | None:
        """Find a function like :meth:`find`. After many calls all functions are listed, which is faster for more."""
        self._lookups += 1
        if self._lookups < _MANY_LOOKUPS:
            return self.find("func", name)
        if self._functions is None:
            self._functions = {self._string(offset): index for offset, index in self.index.names["func"].items()}
        index = self._functions.get(name)
        if index is not None:
            return self.type(self._first_id + index)
        return self._base._find_function(name) if self._base else None

    def constant(self, name: str) -> int | None:
        """Return the value of an enumerator, wherever it is declared; the first one wins."""
        found = self.enumerator(name)
        return found[0] if found is not None else None

    def enumerator(self, name: str) -> tuple[int, CEnum] | None:
        """Return the value of an enumerator and its enumeration, the first that has it; None when none has.

        No type is made on the way but that one: the name's offset is searched among the words.
        """
        offset = self._sections.string_offset(name) if name and "\0" not in name else -1
        if offset < 0:
            return None
        for type_id in self._sections.enums_with_word(offset):
            made = self.type(type_id)
            if isinstance(made, CEnum):
                for item in made.values:
                    if item.name == name:
                        return item.value, made
        return self._base.enumerator(name) if self._base else None

    def names(self, kind: NamedKind) -> Iterator[str]:
        """Yield every name of one kind, the base's first."""
        if self._base:
            yield from self._base.names(kind)
        for offset in self.index.names[kind]:
            yield self._string(offset)

    def find(self, kind: NamedKind, name: str) -> CType | None:
        """Return the first type of this kind and name, or None."""
        # Find the string, then the type that bears it: strings are unique in BTF.
        usable = name and "\0" not in name
        position = self.index.names[kind].get(self._sections.string_offset(name)) if usable else None
        if position is not None:
            return self.type(self._first_id + position)
        return self._base.find(kind, name) if self._base else None

    def type(self, type_id: int) -> CType:
        """Return the type with this number. Raises :class:`SymbolError` when there is none."""
        if type_id == 0:
            return _VOID
        if type_id < self._first_id and self._base:
            return self._base.type(type_id)
        made = self._made.get(type_id)
        if made is None:
            made = self._made[type_id] = self._make(type_id)
        return made

    def _ref(self, type_id: int) -> Ref:
        made = self._made.get(type_id)
        return made if made is not None else Lazy((id(self), type_id), partial(self.type, type_id))

    def _make(self, type_id: int) -> CType:
        at = self._sections.start(type_id)
        words = self._words
        name, info, size = words[at], words[at + 1], words[at + 2]
        kind, vlen, flag = kind_of(info), info & 0xFFFF, bool(info >> 31)
        match kind:
            case BtfKind.STRUCT | BtfKind.UNION:
                return self._make_record(at, kind, vlen, flag)
            case BtfKind.VOLATILE | BtfKind.CONST | BtfKind.RESTRICT:
                return CQualified(_QUALIFIERS[kind], self._ref(size))
            case BtfKind.PTR:
                return self._make_pointer(size)
            case BtfKind.INT:
                return CInt(self._string(name), size, signed=bool(words[at + 3] >> 24 & 1))
            case BtfKind.TYPEDEF:
                return CTypedef(self._string(name), self._ref(size))
            case BtfKind.ARRAY:
                return CArray(self._ref(words[at + 3]), words[at + 5])
            case BtfKind.ENUM | BtfKind.ENUM64:
                return self._make_enum(at, wide=kind == BtfKind.ENUM64, signed=flag)
            case BtfKind.FUNC:
                return self._make_function(self._string(name), size)
            case BtfKind.FUNC_PROTO:
                return self._make_prototype(at, "", vlen)
            case BtfKind.FWD:
                return CStruct(self._string(name), "union" if flag else "struct", 0, (), complete=False)
            case BtfKind.FLOAT:
                return CFloat(self._string(name), size)
            case BtfKind.VAR | BtfKind.TYPE_TAG:
                return self._skip_tags(size)
            case _:  # DATASEC, DECL_TAG: no types
                return _VOID

    def _skip_tags(self, type_id: int) -> CType:
        """Return the type after variables and type tags, which only stand before another type."""
        for _ in range(_MAX_TAGS):
            if not self._is_own(type_id) or self._sections.kind(type_id) not in (BtfKind.VAR, BtfKind.TYPE_TAG):
                return self.type(type_id)
            type_id = self._words[self._sections.start(type_id) + 2]
        raise SymbolError("BTF type tags form a loop")

    def _make_pointer(self, type_id: int) -> CPointer:
        tag = ""
        for _ in range(_MAX_TAGS):
            if not self._is_own(type_id) or self._sections.kind(type_id) != BtfKind.TYPE_TAG:
                return CPointer(self._ref(type_id), tag)
            at = self._sections.start(type_id)
            tag, type_id = tag or self._string(self._words[at]), self._words[at + 2]
        raise SymbolError("BTF type tags form a loop")

    def _is_own(self, type_id: int) -> bool:
        """Tell whether a type is neither void nor the base's."""
        return type_id >= self._first_id

    def _make_record(self, at: int, kind: int, vlen: int, flag: bool) -> CStruct:
        words = self._words
        members = []
        for item in range(at + 3, at + 3 + 3 * vlen, 3):
            position = words[item + 2]
            # kind_flag: offset word is bit-field size << 24 | bit offset (commit 9d5f9f701b18, v5.0).
            bits = position >> 24 if flag else 0
            offset = position & 0xFFFFFF if flag else position
            members.append(CMember(self._string(words[item]), self._ref(words[item + 1]), offset, bits or None))
        name = self._string(words[at])
        return CStruct(name, "struct" if kind == BtfKind.STRUCT else "union", words[at + 2], tuple(members))

    def _make_enum(self, at: int, *, wide: bool, signed: bool) -> CEnum:
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
            values.append(CEnumerator(self._string(words[item]), value))
        name = self._string(words[at])
        return CEnum(name, words[at + 2], signed or any(item.value < 0 for item in values), tuple(values))

    def _make_function(self, name: str, proto: int) -> CFunction:
        if proto < self._first_id and self._base:
            made = self._base.type(proto)
            if isinstance(made, CFunction):
                return CFunction(name, made.result, made.params, made.variadic)
        elif self._sections.kind(proto) == BtfKind.FUNC_PROTO:
            at = self._sections.start(proto)
            return self._make_prototype(at, name, self._words[at + 1] & 0xFFFF)
        raise SymbolError(f"BTF function {name} has no prototype")

    def _make_prototype(self, at: int, name: str, vlen: int) -> CFunction:
        words = self._words
        pairs = [(words[item], words[item + 1]) for item in range(at + 3, at + 3 + 2 * vlen, 2)]
        # A last parameter without name and type is "..." (btf.rst, BTF_KIND_FUNC_PROTO).
        variadic = bool(pairs) and pairs[-1] == (0, 0)
        params = tuple(CParam(self._string(n), self._ref(t)) for n, t in (pairs[:-1] if variadic else pairs))
        return CFunction(name, self._ref(words[at + 2]), params, variadic)
