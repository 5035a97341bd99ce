"""Convert a kernel's types to D's: each when it is first reached, and once.

    CPointer(Lazy(task_struct))   ->  PointerType(StructType("struct", "task_struct", members not converted yet))
    CTypedef("pid_t", int)    ->  IntType("pid_t", 32, signed)

A struct's members are converted when one of them is asked for, so that a program pays only for what it names. The
guest may lie about everything. A member outside of its struct is a :class:`SymbolError`; a type that nests too
deeply or contains itself is ``void``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

from probekit.errors import SymbolError
from probekit.kernel import c_types as c
from probekit.lang.kernelside import KernelSource, ProbeArguments, TagKind, TypedSymbol, Unknown, scoped_name
from probekit.lang.types import (
    CHAR,
    VOID,
    ArrayType,
    EnumType,
    FloatType,
    FuncType,
    IntType,
    PointerType,
    StructMember,
    StructType,
    Type,
    sizeof,
)
from probekit.probe.names import ProbeDescription

__all__ = ("KernelTypes",)

_MOST_NESTED = 32
_LARGEST = 1 << 31


class _Members(Sequence[StructMember]):
    """The members of one struct, converted when they are first looked at."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], tuple[StructMember, ...]]) -> None:
        self._make = make
        self._made: tuple[StructMember, ...] | None = None

    def _all(self) -> tuple[StructMember, ...]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __iter__(self) -> Iterator[StructMember]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> StructMember: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[StructMember, ...]: ...
    def __getitem__(self, index: int | slice) -> StructMember | tuple[StructMember, ...]:
        return self._all()[index]


class KernelTypes:
    """A :class:`probekit.lang.kernelside.KernelSide` over a :class:`KernelSource`."""

    def __init__(self, source: KernelSource) -> None:
        self._source = source
        # By identity: hashing a type would walk all of it.
        self._made: dict[int, tuple[c.CType, Type | None]] = {}
        self._depth = 0
        self._words: dict[str, bool] = {}

    @property
    def lacking(self) -> str:
        """Explain why this kernel has no types; empty when it has."""
        return self._source.lacking

    def tagged(self, kind: TagKind, name: str) -> StructType | EnumType | None:
        """Find ``struct name`` with its members, or None."""
        module, tag = scoped_name(name)
        found = self._source.tagged(kind, tag, module)
        made = self.convert(found) if found is not None else None
        return made if isinstance(made, (StructType, EnumType)) else None

    def typedef(self, name: str) -> Type | None:
        """Find a typedef, or None."""
        module, word = scoped_name(name)
        found = self._source.typedef(word, module)
        return self.convert(found) if found is not None else None

    def is_type(self, name: str) -> bool:
        """Tell whether there is such a typedef."""
        if name not in self._words:
            module, word = scoped_name(name)
            self._words[name] = self._source.typedef(word, module) is not None
        return self._words[name]

    def enumerator(self, name: str) -> tuple[int, EnumType] | None:
        """Find an enumerator's value and its enumeration, or None."""
        found = self._source.enumerator(name)
        made = self.convert(found[1]) if found is not None else None
        return (found[0], made) if found is not None and isinstance(made, EnumType) else None

    def symbol(self, name: str) -> TypedSymbol | None:
        """Find a symbol, or None."""
        module, word = scoped_name(name)
        found = self._source.symbol(word, module)
        if found is None:
            return None
        return TypedSymbol(found.addr, found.place, self.convert(found.type) if found.type is not None else None)

    def arguments(self, description: ProbeDescription) -> Iterator[ProbeArguments]:
        """Yield each probe that matches, with its arguments."""
        for probe in self._source.prototypes(description):
            types = probe.types if isinstance(probe.types, Unknown) else tuple(map(self.convert, probe.types))
            yield ProbeArguments(probe.name, types, probe.registers)

    # Conversion.

    def convert(self, ctype: c.CType) -> Type:
        """Return the D type of a kernel type. Raises :class:`SymbolError`."""
        known = self._made.get(id(ctype))
        if known is not None:
            return known[1] or VOID  # still being converted: it contains itself, not through a struct
        if self._depth >= _MOST_NESTED:
            return VOID
        self._depth += 1
        self._made[id(ctype)] = (ctype, None)
        made: Type | None = None
        try:
            made = self._convert(ctype)
        finally:
            self._depth -= 1
            if made is None:
                del self._made[id(ctype)]
        self._made[id(ctype)] = (ctype, made)
        return made

    def _convert(self, ctype: c.CType) -> Type:
        match ctype:
            case c.CVoid():
                return VOID
            case c.CInt(name="char", size=1):
                return CHAR  # BTF does not say whether it is signed; D's char is
            case c.CInt(name=name, size=size, signed=signed):
                # A type that no register holds, such as __int128, has only a size.
                return IntType(name, size * 8, signed) if size in (1, 2, 4, 8) else FloatType(name, size)
            case c.CFloat(name=name, size=size):
                return FloatType(name, size)
            case c.CPointer():
                return PointerType(self.convert(ctype.target))
            case c.CArray():
                return self._array(ctype)
            case c.CStruct():
                return self._struct(ctype)
            case c.CEnum():
                return _enum(ctype)
            case c.CTypedef():
                return self._typedef(ctype)
            case c.CQualified():
                return self.convert(ctype.target)
            case c.CFunction():
                params = tuple(self.convert(param.type) for param in ctype.params)
                return FuncType(self.convert(ctype.returns), params, ctype.variadic)

    def _typedef(self, ctype: c.CTypedef) -> Type:
        made = self.convert(ctype.target)
        match made:
            case IntType():
                return IntType(ctype.name, made.bits, made.signed)
            case StructType(name="", alias=""):
                made.alias = ctype.name
        return made

    def _array(self, ctype: c.CArray) -> Type:
        element = self.convert(ctype.element)
        if ctype.count * max(sizeof(element), 1) > _LARGEST:
            raise SymbolError(f"the guest's kernel has an array of {ctype.count} times {element}")
        return ArrayType(element, ctype.count)

    def _struct(self, ctype: c.CStruct) -> Type:
        if not ctype.complete:
            # A forward declaration: TypeTable.complete_struct() searches for the struct, in modules too, when that
            # is needed.
            return StructType(ctype.kind, ctype.name)
        made = StructType(ctype.kind, ctype.name, size=ctype.size, align=0, complete=True)
        made.members = _Members(lambda: tuple(self._member(ctype, member) for member in ctype.members))
        return made

    def _member(self, outer: c.CStruct, member: c.CMember) -> StructMember:
        depth, self._depth = self._depth, 0  # members are converted later, from any depth
        try:
            made = self.convert(member.type)
        finally:
            self._depth = depth
        bits = member.bit_size
        if bits is not None and not (isinstance(made, (IntType, EnumType)) and 0 < bits <= 8 * sizeof(made)):
            raise SymbolError(f"{c.display(outer)}: the bit-field {member.name} has {bits} bits of {made}")
        end = member.bit_offset + (8 * sizeof(made) if bits is None else bits)
        if end > 8 * outer.size or (bits is None and member.bit_offset % 8):
            raise SymbolError(f"{c.display(outer)}: the member {member.name or '(anonymous)'} does not fit in it")
        return StructMember(member.name, made, member.bit_offset, bits)


def _enum(ctype: c.CEnum) -> Type:
    if ctype.size not in (1, 2, 4, 8):
        raise SymbolError(f"enum {ctype.name or '(anonymous)'} has {ctype.size} bytes")
    values = tuple((item.name, item.value) for item in ctype.values)
    # D treats an enumeration as an int if all its values fit in one.
    signed = ctype.signed or (ctype.size == 4 and all(value < 1 << 31 for _, value in values))
    return EnumType(ctype.name, values, complete=True, size=ctype.size, signed=signed)
