"""Model C types as the kernel uses them, independent of the format that they were read from.

A reader of any format builds these objects; :mod:`probekit.lang` converts them to D's own types. Types form cyclic
graphs through pointers, so a reference may be a :class:`Lazy`, made when first asked for; ``deref()`` hides the
difference.

Example: ``struct list_head { struct list_head *next, *prev; }`` is
``CStruct("list_head", "struct", 16, (CMember("next", CPointer(Lazy(...)), 0),
CMember("prev", CPointer(Lazy(...)), 64)))``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from probekit.errors import SymbolError
from probekit.records import record

__all__ = (
    "CArray",
    "CEnum",
    "CEnumerator",
    "CField",
    "CFloat",
    "CFunction",
    "CInt",
    "CMember",
    "CParam",
    "CPointer",
    "CQualified",
    "CStruct",
    "CType",
    "CTypedef",
    "CVoid",
    "Lazy",
    "Ref",
    "deref",
    "display",
    "sizeof",
    "strip",
)

_MAX_DEPTH = 32
_MAX_SHOWN = 48
# Also keeps the recursion below Python's own limit.
_MAX_NESTED = 256
POINTER_SIZE = 8


class Lazy:
    """A type that is made on first use. Two are equal when their ``key`` is equal."""

    __slots__ = ("_made", "_make", "key")

    def __init__(self, key: Hashable, make: Callable[[], CType]) -> None:
        self.key = key
        self._make = make
        self._made: CType | None = None

    def get(self) -> CType:
        """Return the type."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Lazy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Lazy({self.key!r})"


@record
class CVoid:
    """``void``, also what an unknown or forward-declared type is treated as."""

    name: str = "void"


@record
class CInt:
    """An integer; ``char`` and ``_Bool`` too."""

    name: str
    size: int
    """Bytes."""
    signed: bool
    """Whether it is signed."""


@record
class CFloat:
    """A floating-point number."""

    name: str
    size: int
    """Bytes."""


@record
class CPointer:
    """A pointer."""

    to: Ref
    """The type that it points at, perhaps not made yet; see :attr:`target`."""
    tag: str = ""
    """A BTF type tag such as ``user``, ``percpu``, ``rcu``; empty without one."""

    @property
    def target(self) -> CType:
        """The type that it points at."""
        return deref(self.to)


@record
class CArray:
    """An array of ``count`` elements."""

    of: Ref
    """The type of one element, perhaps not made yet; see :attr:`element`."""
    count: int
    """How many elements it has."""

    @property
    def element(self) -> CType:
        """The type of one element."""
        return deref(self.of)


@record
class CMember:
    """One member of a struct or union as declared."""

    name: str
    """Empty for an anonymous struct or union."""
    of: Ref
    """The member's type, perhaps not made yet; see :attr:`type`."""
    bit_offset: int
    """Bits from the start of the struct that declares it."""
    bit_size: int | None = None
    """Bits of a bit-field; None for any other member."""

    @property
    def type(self) -> CType:
        """The member's type."""
        return deref(self.of)


@record
class CField:
    """Where a (possibly nested) member is, from the start of the outer struct."""

    name: str
    """Its name, or the path to it: ``se.vruntime``."""
    type: CType
    offset: int
    """Bytes; of a bit-field, the byte that holds its first bit."""
    size: int
    """Bytes of its type."""
    bit_shift: int = 0
    """The number of a bit-field's first bit in its byte (little-endian, bit 0 lowest)."""
    bit_size: int | None = None
    """Bits of a bit-field; None for any other member."""


@dataclass(frozen=True, slots=True)
class CStruct:
    """A struct or union."""

    name: str
    """Empty for an anonymous struct or union."""
    kind: Literal["struct", "union"]
    size: int
    """Bytes."""
    members: tuple[CMember, ...] = field(repr=False)
    """The members, as declared."""
    complete: bool = True
    """False for a forward declaration, which has no members and the size 0."""

    def field(self, path: str) -> CField:
        """Find the member at ``path`` (``comm``, ``se.vruntime``), through anonymous members.

        Raises :class:`SymbolError` when there is none.
        """
        found = self.find_field(path)
        if found is None:
            raise SymbolError(f"{self.kind} {self.name or '(anonymous)'} has no member {path}")
        return found

    def find_field(self, path: str) -> CField | None:
        """Find a member like :meth:`field`; return None when there is none, for features that some kernels lack."""
        head, _, rest = path.partition(".")
        found = _find_member(self, head, 0, _Budget(_MAX_NESTED))
        if found is None or not rest:
            return found
        inner = strip(found.type)
        nested = inner.find_field(rest) if isinstance(inner, CStruct) else None
        if nested is None:
            return None
        return CField(path, nested.type, found.offset + nested.offset, nested.size, nested.bit_shift, nested.bit_size)

    def fields(self) -> Iterator[CField]:
        """Yield every named member in declaration order, those of anonymous members included."""
        yield from _flatten(self, 0, _Budget(_MAX_NESTED))


@record
class CEnumerator:
    """One constant of an enumeration."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class CEnum:
    """An enumeration."""

    name: str
    size: int
    """Bytes."""
    signed: bool
    values: tuple[CEnumerator, ...] = field(repr=False)
    """The constants, as declared."""


@record
class CTypedef:
    """Another name of a type."""

    name: str
    of: Ref
    """The type that it names, perhaps not made yet; see :attr:`target`."""

    @property
    def target(self) -> CType:
        """The type that it names."""
        return deref(self.of)


@record
class CQualified:
    """A type with ``const``, ``volatile`` or ``restrict``."""

    qualifier: Literal["const", "volatile", "restrict"]
    of: Ref
    """The type without the qualifier, perhaps not made yet; see :attr:`target`."""

    @property
    def target(self) -> CType:
        """The type without the qualifier."""
        return deref(self.of)


@record
class CParam:
    """One parameter of a function."""

    name: str
    """Empty where the prototype gives none."""
    of: Ref
    """The parameter's type, perhaps not made yet; see :attr:`type`."""

    @property
    def type(self) -> CType:
        """The parameter's type."""
        return deref(self.of)


@record
class CFunction:
    """A function's prototype."""

    name: str
    """Empty for a bare prototype, to which a pointer points."""
    result: Ref
    """The type of the result, perhaps not made yet; see :attr:`returns`."""
    params: tuple[CParam, ...]
    """The parameters, in order."""
    variadic: bool = False
    """Whether the last parameter is ``...``."""

    @property
    def returns(self) -> CType:
        """The type of the result."""
        return deref(self.result)


CType: TypeAlias = CVoid | CInt | CFloat | CPointer | CArray | CStruct | CEnum | CTypedef | CQualified | CFunction
Ref: TypeAlias = CType | Lazy


def deref(ref: Ref) -> CType:
    """Return the type itself, and make it when that has not happened yet."""
    return ref.get() if isinstance(ref, Lazy) else ref


def strip(ctype: CType) -> CType:
    """Return the type without typedefs and qualifiers. Raises :class:`SymbolError` when they form a loop."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(ctype, (CTypedef, CQualified)):
            return ctype
        ctype = ctype.target
    raise SymbolError("the guest's types form a loop of typedefs")


def sizeof(ctype: CType) -> int:
    """Return the size in bytes; 0 for void, functions and incomplete types.

    Raises :class:`SymbolError` for typedefs that form a loop and arrays that nest too deeply.
    """
    factor = 1
    for _ in range(_MAX_DEPTH):
        ctype = strip(ctype)
        if not isinstance(ctype, CArray):
            break
        factor *= ctype.count
        ctype = ctype.element
    if isinstance(ctype, CPointer):
        return factor * POINTER_SIZE
    if isinstance(ctype, (CInt, CFloat, CEnum, CStruct)):
        return factor * ctype.size
    if isinstance(ctype, CArray):
        raise SymbolError("the guest's types nest arrays too deeply")
    return 0


def display(ctype: CType) -> str:
    """Spell the type as C does, such as ``struct task_struct *``, for messages; a long spelling is cut off."""
    return _display(ctype, _Budget(_MAX_SHOWN))


class _Budget:
    """A count of the types that may still be visited: hostile types can branch at every level of a loop."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self) -> bool:
        """Use one; False when none is left."""
        self.left -= 1
        return self.left >= 0


def _display(ctype: CType, budget: _Budget) -> str:
    if not budget.take():
        return "..."
    if isinstance(ctype, CPointer):
        return f"{_display(ctype.target, budget)} *".replace("* *", "**")
    if isinstance(ctype, CArray):
        return f"{_display(ctype.element, budget)}[{ctype.count}]"
    if isinstance(ctype, CStruct):
        return f"{ctype.kind} {ctype.name or '(anonymous)'}"
    if isinstance(ctype, CEnum):
        return f"enum {ctype.name or '(anonymous)'}"
    if isinstance(ctype, CQualified):
        return f"{ctype.qualifier} {_display(ctype.target, budget)}"
    if isinstance(ctype, CFunction):
        shown = [_display(param.type, budget) for param in ctype.params[:_MAX_SHOWN]] or ["void"]
        return f"{_display(ctype.returns, budget)} ({', '.join(shown)}{', ...' if ctype.variadic else ''})"
    return ctype.name


def _to_field(member: CMember, base: int) -> CField:
    bits = base + member.bit_offset
    ctype = member.type
    return CField(
        name=member.name,
        type=ctype,
        offset=bits // 8,
        size=sizeof(ctype),
        bit_shift=bits % 8,
        bit_size=member.bit_size,
    )


def _find_member(outer: CStruct, name: str, base: int, budget: _Budget) -> CField | None:
    for member in outer.members:
        if member.name == name and name:
            return _to_field(member, base)
    for member in outer.members:
        inner = _anonymous(member, budget)
        if inner is not None:
            found = _find_member(inner, name, base + member.bit_offset, budget)
            if found is not None:
                return found
    return None


def _flatten(outer: CStruct, base: int, budget: _Budget) -> Iterator[CField]:
    for member in outer.members:
        inner = _anonymous(member, budget)
        if inner is not None:
            yield from _flatten(inner, base + member.bit_offset, budget)
        elif member.name:
            yield _to_field(member, base)


def _anonymous(member: CMember, budget: _Budget) -> CStruct | None:
    """Return the type of ``member`` if that is an anonymous struct or union, whose members count as the outer one's."""
    inner = strip(member.type) if not member.name else None
    if not isinstance(inner, CStruct):
        return None
    if not budget.take():
        raise SymbolError("the guest's types nest anonymous structs without end")
    return inner
