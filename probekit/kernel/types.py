"""C types as the kernel uses them: the model that :mod:`probekit.lang` sees.

The model knows nothing of BTF: a reader of any format (or a D script's own
``struct`` declaration) builds the same objects. Types form cyclic graphs
through pointers, so a reference may be a :class:`Lazy`, made when first asked
for; ``deref()`` hides the difference.

Example: ``struct list_head { struct list_head *next, *prev; }`` is
``StructType("list_head", "struct", 16, (Member("next", PtrType(Lazy(...)), 0),
Member("prev", PtrType(Lazy(...)), 64)))``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from probekit.errors import SymbolError
from probekit.records import record

__all__ = (
    "ArrayType",
    "CType",
    "EnumType",
    "Enumerator",
    "Field",
    "FloatType",
    "FuncType",
    "IntType",
    "Lazy",
    "Member",
    "Param",
    "PtrType",
    "QualifiedType",
    "Ref",
    "StructType",
    "TypedefType",
    "VoidType",
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
    """A type that is made on first use. Two are equal when their ``key`` is."""

    __slots__ = ("_made", "_make", "key")

    def __init__(self, key: Hashable, make: Callable[[], CType]) -> None:
        self.key = key
        self._make = make
        self._made: CType | None = None

    def get(self) -> CType:
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
class VoidType:
    """``void``, also what an unknown or forward-declared type is treated as."""

    name: str = "void"


@record
class IntType:
    """An integer, ``char`` or ``_Bool``. ``size`` in bytes."""

    name: str
    size: int
    signed: bool
    is_char: bool = False
    is_bool: bool = False


@record
class FloatType:
    name: str
    size: int


@record
class PtrType:
    """A pointer; ``tag`` is a BTF type tag such as ``user``, ``percpu``, ``rcu``."""

    to: Ref
    tag: str = ""

    @property
    def target(self) -> CType:
        return deref(self.to)


@record
class ArrayType:
    of: Ref
    count: int

    @property
    def element(self) -> CType:
        return deref(self.of)


@record
class Member:
    """One member as declared. ``name`` is empty for an anonymous struct or union. ``bit_size``: bit-fields only."""

    name: str
    of: Ref
    bit_offset: int
    bit_size: int | None = None

    @property
    def type(self) -> CType:
        return deref(self.of)


@record
class Field:
    """Where a (possibly nested) member is, from the start of the outer struct.

    For a bit-field, ``offset`` is the byte that holds its first bit and
    ``bit_shift`` that bit's number in it (little-endian, bit 0 lowest).
    """

    name: str
    type: CType
    offset: int
    size: int
    bit_shift: int = 0
    bit_size: int | None = None


@dataclass(frozen=True, slots=True)
class StructType:
    """A struct or union. ``complete`` is False for a forward declaration (no members, size 0)."""

    name: str
    kind: Literal["struct", "union"]
    size: int
    members: tuple[Member, ...] = field(repr=False)
    complete: bool = True

    def field(self, path: str) -> Field:
        """The member at ``path`` (``comm``, ``se.vruntime``), through anonymous members; or :class:`SymbolError`."""
        found = self.find_field(path)
        if found is None:
            raise SymbolError(f"{self.kind} {self.name or '(anonymous)'} has no member {path}")
        return found

    def find_field(self, path: str) -> Field | None:
        """As :meth:`field`, or None: for features that some kernels lack."""
        head, _, rest = path.partition(".")
        found = _find_member(self, head, 0, _Budget(_MAX_NESTED))
        if found is None or not rest:
            return found
        inner = strip(found.type)
        nested = inner.find_field(rest) if isinstance(inner, StructType) else None
        if nested is None:
            return None
        return Field(path, nested.type, found.offset + nested.offset, nested.size, nested.bit_shift, nested.bit_size)

    def fields(self) -> Iterator[Field]:
        """Every named member, those of anonymous members included, in declaration order."""
        yield from _flatten(self, 0, _Budget(_MAX_NESTED))


@record
class Enumerator:
    name: str
    value: int


@dataclass(frozen=True, slots=True)
class EnumType:
    name: str
    size: int
    signed: bool
    values: tuple[Enumerator, ...] = field(repr=False)


@record
class TypedefType:
    name: str
    of: Ref

    @property
    def target(self) -> CType:
        return deref(self.of)


@record
class QualifiedType:
    """``const``, ``volatile`` or ``restrict``."""

    qualifier: Literal["const", "volatile", "restrict"]
    of: Ref

    @property
    def target(self) -> CType:
        return deref(self.of)


@record
class Param:
    name: str
    of: Ref

    @property
    def type(self) -> CType:
        return deref(self.of)


@record
class FuncType:
    """A function's prototype. ``name`` is empty for a bare prototype (behind a pointer)."""

    name: str
    result: Ref
    params: tuple[Param, ...]
    variadic: bool = False

    @property
    def returns(self) -> CType:
        return deref(self.result)


CType: TypeAlias = (
    VoidType
    | IntType
    | FloatType
    | PtrType
    | ArrayType
    | StructType
    | EnumType
    | TypedefType
    | QualifiedType
    | FuncType
)
Ref: TypeAlias = CType | Lazy


def deref(ref: Ref) -> CType:
    """The type itself, whether it was made already or not."""
    return ref.get() if isinstance(ref, Lazy) else ref


def strip(ctype: CType) -> CType:
    """Without typedefs and qualifiers."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(ctype, (TypedefType, QualifiedType)):
            return ctype
        ctype = ctype.target
    raise SymbolError("the guest's types form a loop of typedefs")


def sizeof(ctype: CType) -> int:
    """Size in bytes; 0 for void, functions and incomplete types."""
    factor = 1
    for _ in range(_MAX_DEPTH):
        ctype = strip(ctype)
        if not isinstance(ctype, ArrayType):
            break
        factor *= ctype.count
        ctype = ctype.element
    if isinstance(ctype, PtrType):
        return factor * POINTER_SIZE
    if isinstance(ctype, (IntType, FloatType, EnumType, StructType)):
        return factor * ctype.size
    if isinstance(ctype, ArrayType):
        raise SymbolError("the guest's types nest arrays too deeply")
    return 0


def display(ctype: CType) -> str:
    """C spelling for messages, such as ``struct task_struct *``; cut off where it would get long."""
    return _display(ctype, _Budget(_MAX_SHOWN))


class _Budget:
    """How much may still be visited: hostile types can branch at every level of a loop."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def _display(ctype: CType, budget: _Budget) -> str:
    if not budget.take():
        return "..."
    if isinstance(ctype, PtrType):
        return f"{_display(ctype.target, budget)} *".replace("* *", "**")
    if isinstance(ctype, ArrayType):
        return f"{_display(ctype.element, budget)}[{ctype.count}]"
    if isinstance(ctype, StructType):
        return f"{ctype.kind} {ctype.name or '(anonymous)'}"
    if isinstance(ctype, EnumType):
        return f"enum {ctype.name or '(anonymous)'}"
    if isinstance(ctype, QualifiedType):
        return f"{ctype.qualifier} {_display(ctype.target, budget)}"
    if isinstance(ctype, FuncType):
        shown = [_display(param.type, budget) for param in ctype.params[:_MAX_SHOWN]] or ["void"]
        return f"{_display(ctype.returns, budget)} ({', '.join(shown)}{', ...' if ctype.variadic else ''})"
    return ctype.name


def _to_field(member: Member, base: int) -> Field:
    bits = base + member.bit_offset
    ctype = member.type
    return Field(
        name=member.name,
        type=ctype,
        offset=bits // 8,
        size=sizeof(ctype),
        bit_shift=bits % 8,
        bit_size=member.bit_size,
    )


def _find_member(outer: StructType, name: str, base: int, budget: _Budget) -> Field | None:
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


def _flatten(outer: StructType, base: int, budget: _Budget) -> Iterator[Field]:
    for member in outer.members:
        inner = _anonymous(member, budget)
        if inner is not None:
            yield from _flatten(inner, base + member.bit_offset, budget)
        elif member.name:
            yield _to_field(member, base)


def _anonymous(member: Member, budget: _Budget) -> StructType | None:
    """The struct or union whose members count as the outer one's, if ``member`` is one."""
    inner = strip(member.type) if not member.name else None
    if not isinstance(inner, StructType):
        return None
    if not budget.take():
        raise SymbolError("the guest's types nest anonymous structs without end")
    return inner
