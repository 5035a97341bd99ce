"""Resolve types as written, specifiers and declarators, to :mod:`probekit.lang.types`.

    unsigned long int            ->  64 bits, unsigned
    struct s { char a; int b:3; } ->  a StructType, kept under its tag
    int *(*f)(char), x[4]        ->  pointer to a function, array of 4

Each program has one table. Its script's tags, typedefs and enumerators come first, then those of the guest's kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from probekit.errors import InternalError
from probekit.lang import ast
from probekit.lang.diagnostics import did_you_mean, refuse
from probekit.lang.kernelside import KernelSide, NoKernel
from probekit.lang.keywords import BASE_TYPES
from probekit.lang.source import Span
from probekit.lang.types import (
    INT,
    STRING_SIZE,
    TYPE_NAMES,
    VOID,
    ArrayType,
    EnumType,
    FloatType,
    FuncType,
    IntType,
    PointerType,
    StringType,
    StructMember,
    StructType,
    Type,
    VoidType,
    alignof,
    sizeof,
)
from probekit.records import fresh, mutable_record, record

__all__ = ("Declared", "TypeTable")

MAX_ARRAY = 1 << 31
_MAX_OBJECT = 1 << 31

# By their specifiers, sorted and without a redundant "signed" or "int".
_INTEGERS: dict[tuple[str, ...], IntType] = {
    words: IntType(name, bits, signed)
    for words, name, bits, signed in (
        (("char",), "char", 8, True),
        (("char", "unsigned"), "unsigned char", 8, False),
        (("short",), "short", 16, True),
        (("short", "unsigned"), "unsigned short", 16, False),
        ((), "int", 32, True),
        (("unsigned",), "unsigned int", 32, False),
        (("long",), "long", 64, True),
        (("long", "unsigned"), "unsigned long", 64, False),
        (("long", "long"), "long long", 64, True),
        (("long", "long", "unsigned"), "unsigned long long", 64, False),
    )
}
_FLOATS = {
    ("float",): FloatType("float", 4),
    ("double",): FloatType("double", 8),
    ("double", "long"): FloatType("long double", 16),
}
_QUALIFIERS = frozenset(("const", "volatile", "restrict", "userland"))


@record
class Declared:
    """One declarator, resolved."""

    name: str
    type: Type
    keys: tuple[Type, ...] | None
    """The key types of an associative array, else None."""
    scoped: bool
    """The name was written with a backquote."""
    span: Span
    params: tuple[tuple[str, Type], ...] = ()
    """Names and types of the keys: the parameters of an inline."""


@mutable_record
class TypeTable:
    """The types of one program."""

    constant: Callable[[ast.Expr], int | None]
    """Evaluates a constant expression. Returns None for any other."""
    string_size: int = STRING_SIZE
    """The option ``strsize``, in bytes."""
    kernel: KernelSide = fresh(NoKernel)
    typedefs: dict[str, Type] = fresh(lambda: dict(TYPE_NAMES))
    tags: dict[tuple[str, str], StructType | EnumType] = fresh(dict)
    """By keyword (``struct``, ``union``, ``enum``) and tag."""
    enumerators: dict[str, tuple[int, EnumType]] = fresh(dict)
    """The value of each, and its enumeration."""

    def resolve(self, name: ast.TypeName) -> Type:
        """Return the type that a type name stands for. Raises :class:`Refusal`."""
        base = self.specified(name.specs)
        if name.specs.storage:
            raise refuse("D_SYNTAX", name.span, f"{name.specs.storage[0]} cannot be part of a type name")
        declared = self.declared(base, name.declarator, name.span)
        if declared.keys is not None:
            raise refuse("D_DECL_DYNOBJ", name.span, "an associative array is not a type")
        return declared.type

    # Specifiers.

    def specified(self, specs: ast.Specs) -> Type:
        """Return the type that specifiers name. Raises :class:`Refusal`."""
        words = [w for w in specs.words if w not in _QUALIFIERS]
        if specs.tagged:
            return self._tagged(specs, words)
        if unknown := [w for w in words if w not in BASE_TYPES]:
            return self._typedef(unknown[0], words, specs.span)
        match words:
            case ["string"]:
                return StringType(self.string_size)
            case ["void"]:
                return VOID
            case []:
                raise refuse("D_DECL_IDENT", specs.span, "a type is missing")
        return _arithmetic(words, specs.span)

    def _tagged(self, specs: ast.Specs, words: list[str]) -> Type:
        if len(specs.tagged) > 1 or words:
            _bad_combination([*words, "struct"], specs.span)
        spec = specs.tagged[0]
        return self.struct(spec) if isinstance(spec, ast.StructSpec) else self.enum(spec)

    def _typedef(self, name: str, words: list[str], span: Span) -> Type:
        t = self.typedefs.get(name) or self.kernel.typedef(name)
        if t is None:
            hint = self.kernel.lacking or did_you_mean(name, self.typedefs)
            raise refuse("D_TYPE_ERR", span, f"unknown type {name}", hint)
        if len(words) > 1:
            _bad_combination(words, span)
        return t

    def struct(self, spec: ast.StructSpec) -> StructType:
        """Return ``struct tag``, or define it. Raises :class:`Refusal`."""
        known = self.tags.get((spec.kind, spec.tag)) if spec.tag else None
        if spec.members is None and not (known is not None and known.complete):
            found = self.kernel.tagged(spec.kind, spec.tag)
            if isinstance(found, StructType):
                return found
        if "`" in spec.tag:
            message = f"{spec.kind} {spec.tag} is not defined"
            raise refuse("D_TYPE_ERR", spec.span, message, self.kernel.lacking)
        t = known if isinstance(known, StructType) else StructType(spec.kind, spec.tag)
        if spec.tag:
            self.tags[spec.kind, spec.tag] = t
        if spec.members is None:
            return t
        if t.complete:
            raise refuse("D_DECL_TYPERED", spec.span, f"{t} is defined already")
        _lay_out(self, t, spec)
        return t

    def complete_struct(self, t: StructType) -> StructType:
        """Return a struct with its members, if only its name is known here but it is defined somewhere."""
        if t.complete or not t.name:
            return t
        own = self.tags.get((t.kind, t.name))
        found = own if own is not None and own.complete else self.kernel.tagged(t.kind, t.name)
        return found if isinstance(found, StructType) else t

    def enum(self, spec: ast.EnumSpec) -> EnumType:
        """Return ``enum tag``, or define it. Raises :class:`Refusal`."""
        known = self.tags.get(("enum", spec.tag)) if spec.tag else None
        if spec.values is None and not (known is not None and known.complete):
            found = self.kernel.tagged("enum", spec.tag)
            if isinstance(found, EnumType):
                return found
        if "`" in spec.tag:
            raise refuse("D_TYPE_ERR", spec.span, f"enum {spec.tag} is not defined", self.kernel.lacking)
        t = known if isinstance(known, EnumType) else EnumType(spec.tag)
        if spec.tag:
            self.tags["enum", spec.tag] = t
        if spec.values is None:
            return t
        if t.complete:
            raise refuse("D_DECL_TYPERED", spec.span, f"{t} is defined already")
        values: list[tuple[str, int]] = []
        following = 0
        for item in spec.values:
            value = following
            if item.value is not None:
                given = self.constant(item.value)
                if given is None:
                    raise refuse("D_DECL_ENCONST", item.value.span, f"{item.name} needs an integer constant")
                value = given
            if not INT.holds(value):
                raise refuse("D_DECL_ENOFLOW", item.span, f"{item.name} does not fit in an int")
            if any(item.name == name for name, _ in values):
                raise refuse("D_UNKNOWN", item.span, f"{item.name} stands twice in {t}")
            if item.name in self.enumerators:
                raise refuse("D_DECL_IDRED", item.span, f"{item.name} is an enumerator already")
            self.enumerators[item.name] = (value, t)
            values.append((item.name, value))
            following = value + 1
        t.values, t.complete = tuple(values), True
        return t

    # Declarators.

    def declared(self, base: Type, declarator: ast.Declarator | None, span: Span) -> Declared:
        """Resolve a declarator around a base type. Raises :class:`Refusal`."""
        t, keys, name, scoped = base, None, "", False
        params: tuple[tuple[str, Type], ...] = ()
        while declarator is not None:
            if keys is not None:
                raise refuse("D_DECL_DYNOBJ", declarator.span, "an associative array cannot be part of another type")
            match declarator:
                case ast.Named():
                    return Declared(declarator.name, t, keys, declarator.scoped, declarator.span, params)
                case ast.PointerTo():
                    for _ in range(declarator.stars):
                        t = PointerType(t)
                case ast.ArrayOf() if declarator.params is not None:
                    params = tuple(self._params(declarator.params, declarator.span, keys=True))
                    keys = tuple(p for _, p in params)
                case ast.ArrayOf():
                    t = self._array(t, declarator)
                case ast.FunctionOf():
                    t = self._function(t, declarator)
                case _:
                    assert_never(declarator)
            inner = declarator.inner
            if inner is None:
                break
            if isinstance(inner, ast.Named):
                name, scoped, span = inner.name, inner.scoped, inner.span
                break
            declarator = inner
        return Declared(name, t, keys, scoped, span, params)

    def _array(self, t: Type, declarator: ast.ArrayOf) -> Type:
        if declarator.size is None:
            raise refuse("D_DECL_ARRNULL", declarator.span, "an array needs a size or key types")
        count = self.constant(declarator.size)
        if count is None or count <= 0:
            raise refuse("D_DECL_ARRSUB", declarator.size.span, "an array's size must be a positive integer constant")
        if isinstance(t, VoidType):
            raise refuse("D_DECL_VOIDOBJ", declarator.span, "an array cannot have elements of type void")
        if isinstance(t, FuncType):
            raise refuse("D_DECL_DYNOBJ", declarator.span, "an array cannot have functions as its elements")
        if isinstance(t, StructType) and not t.complete:
            raise refuse("D_DECL_INCOMPLETE", declarator.span, f"{t} is not complete here")
        if count >= MAX_ARRAY or count * max(1, sizeof(t, self.string_size)) > _MAX_OBJECT:
            raise refuse("D_DECL_ARRBIG", declarator.size.span, "the array is too big")
        # The tree is read from the outside in, so int a[2][3] is two arrays of three.
        return ArrayType(t, count)

    def _function(self, t: Type, declarator: ast.FunctionOf) -> Type:
        listed = declarator.params
        if listed is None:
            return FuncType(t, (), variadic=True)
        params = [p for _, p in self._params(listed, declarator.span, keys=False)]
        return FuncType(t, tuple(p for p in params if not isinstance(p, VoidType)), listed.variadic)

    def _params(self, listed: ast.Params, span: Span, *, keys: bool) -> list[tuple[str, Type]]:
        if keys and listed.variadic:
            raise refuse("D_DECL_PROTO_VARARGS", span, "key types cannot end in ...")
        found: list[tuple[str, Type]] = []
        for param in listed.params:
            declared = self.parameter(param)
            if isinstance(declared.type, VoidType):
                if keys:
                    raise refuse("D_DECL_PROTO_TYPE", param.span, "a key cannot be void")
                if declared.name:
                    raise refuse("D_DECL_PROTO_NAME", param.span, "a void parameter cannot have a name")
                if len(listed.params) > 1 or listed.variadic:
                    raise refuse("D_DECL_PROTO_VOID", param.span, "void must be the only parameter")
            found.append((declared.name, declared.type))
        return found

    def parameter(self, param: ast.ParamDecl) -> Declared:
        """Resolve one parameter: arrays and functions become pointers, as in C."""
        if any(word != "register" for word in param.specs.storage):
            raise refuse("D_DECL_PARMCLASS", param.span, f"a parameter cannot be {param.specs.storage[0]}")
        base = self.specified(param.specs)
        declarator = param.declarator
        if isinstance(declarator, ast.ArrayOf) and declarator.size is None and declarator.params is None:
            inner = self.declared(base, declarator.inner, param.span)
            return Declared(inner.name, PointerType(inner.type), None, inner.scoped, inner.span)
        declared = self.declared(base, declarator, param.span)
        if declared.keys is not None:
            raise refuse("D_DECL_PROTO_TYPE", param.span, "a parameter cannot be an associative array")
        match declared.type:
            case ArrayType(of=element):
                t: Type = PointerType(element)
            case FuncType() as function:
                t = PointerType(function)
            case other:
                t = other
        return Declared(declared.name, t, None, declared.scoped, declared.span)


def _lay_out(types: TypeTable, t: StructType, spec: ast.StructSpec) -> None:
    members: list[StructMember] = []
    names: set[str] = set()
    end = 0
    for decl in spec.members or ():
        base = types.specified(decl.specs)
        if decl.specs.storage:
            raise refuse("D_SYNTAX", decl.span, f"a member cannot be {decl.specs.storage[0]}")
        if not decl.members:
            if not isinstance(base, StructType) or base.name:
                raise refuse("D_DECL_MNAME", decl.span, "a member has no name")
            end = _place(t, members, StructMember("", base, 0), end, types.string_size)
        for declarator, width in decl.members:
            member = _member(types, t, base, declarator, width, decl.span)
            if member.name in names:
                raise refuse("D_UNKNOWN", decl.span, f"member {member.name} is declared twice")
            if member.name or isinstance(member.type, StructType):
                names.add(member.name)
            end = _place(t, members, member, end, types.string_size)
    size = -(-end // 8)
    t.size = -(-size // t.align) * t.align
    if t.size > _MAX_OBJECT:
        raise refuse("D_DECL_ARRBIG", spec.span, f"{t} is too big")
    t.members, t.complete = tuple(members), True


def _member(
    types: TypeTable, of: StructType, base: Type, declarator: ast.Declarator | None, width: ast.Expr | None, span: Span
) -> StructMember:
    if isinstance(declarator, ast.ArrayOf) and declarator.size is None and declarator.params is None:
        return _open_array(types, of, base, declarator, span)
    declared = types.declared(base, declarator, span)
    if declared.scoped:
        raise refuse("D_DECL_SCOPE", declared.span, "a member's name cannot have a scope")
    if declared.keys is not None:
        raise refuse("D_DECL_DYNOBJ", declared.span, f"member {declared.name} cannot be an associative array")
    t = declared.type
    if isinstance(t, (StructType, EnumType)) and not t.complete:
        raise refuse("D_DECL_INCOMPLETE", declared.span, f"{t} is not complete here")
    if isinstance(t, VoidType):
        raise refuse("D_DECL_VOIDOBJ", declared.span, f"member {declared.name} cannot be void")
    if isinstance(t, FuncType):
        raise refuse("D_DECL_DYNOBJ", declared.span, f"member {declared.name} cannot be a function")
    if width is None:
        return StructMember(declared.name, t, 0)
    return StructMember(declared.name, t, 0, _bits(types, declared.name, t, width))


def _open_array(types: TypeTable, of: StructType, base: Type, declarator: ast.ArrayOf, span: Span) -> StructMember:
    """Return the member ``char name[]``, which has no size of its own."""
    element = types.declared(base, declarator.inner, span)
    if of.kind == "union":
        raise refuse("D_DECL_VOIDOBJ", declarator.span, f"member {element.name} of a union needs a size")
    if isinstance(element.type, (VoidType, FuncType)) or element.keys is not None or not sizeof(element.type):
        raise refuse("D_DECL_DYNOBJ", declarator.span, f"member {element.name} cannot be an array of {element.type}")
    return StructMember(element.name, ArrayType(element.type, 0), 0)


def _bits(types: TypeTable, name: str, t: Type, width: ast.Expr) -> int:
    bits = types.constant(width)
    if bits == 0 and not name:
        return 0
    if bits is None or bits <= 0:
        raise refuse("D_DECL_BFCONST", width.span, "a bit-field's width must be a positive integer constant")
    if not isinstance(t, IntType):
        raise refuse("D_DECL_BFTYPE", width.span, f"a bit-field cannot be {t}")
    if bits > sizeof(t) * 8:
        raise refuse("D_DECL_BFSIZE", width.span, f"{bits} bits do not fit in {t}")
    return bits


def _place(t: StructType, members: list[StructMember], member: StructMember, end: int, string_size: int) -> int:
    """Add a member after bit ``end`` (at bit 0 of a union). Returns the end of the struct so far, in bits."""
    start = 0 if t.kind == "union" else end
    if member.bit_size is None:
        align, size = alignof(member.type), sizeof(member.type, string_size) * 8
        t.align = max(t.align, align)
        start = -(-start // (align * 8)) * align * 8
        members.append(StructMember(member.name, member.type, start))
        return max(end, start + size)
    if member.bit_size == 0:
        return end  # ":0" begins a new unit in C; DTrace ignores it
    unit = sizeof(member.type) * 8
    if start // unit != (start + member.bit_size - 1) // unit:
        start = -(-start // unit) * unit
    if member.name:
        t.align = max(t.align, unit // 8)
        members.append(StructMember(member.name, member.type, start, member.bit_size))
    return max(end, start + member.bit_size)


def _arithmetic(words: list[str], span: Span) -> Type:
    signs = [w for w in words if w in ("signed", "unsigned")]
    rest = [w for w in words if w not in ("signed", "unsigned")]
    core = sorted(w for w in words if w not in ("signed", "int"))
    t = _INTEGERS.get(tuple(core))
    plain = words.count("int") <= 1 and not ("int" in words and "char" in words)
    if t is not None and plain and len(signs) <= 1:
        return t
    if not signs and (f := _FLOATS.get(tuple(sorted(words)))) is not None:
        return f
    if len(set(signs)) < len(signs) or len(signs) > 1:
        raise refuse("D_DECL_COMBO", span, f"{' '.join(words)} is not a type")
    _bad_combination([*signs, *rest], span)
    raise InternalError("a bad combination was accepted")


def _bad_combination(words: list[str], span: Span) -> None:
    """Raise DTrace's own fault for this combination of specifiers."""
    text = f"{' '.join(words)} is not a type"
    integers = {"char", "short", "int", "long"}
    kinds = [w for w in words if w not in ("signed", "unsigned", "short", "long")]
    attributes = [w for w in words if w in ("signed", "unsigned", "short", "long")]
    if len(kinds) == 1 and attributes:
        match kinds[0]:
            case "char":
                raise refuse("D_DECL_CHARATTR", span, text)
            case "void":
                raise refuse("D_DECL_VOIDATTR", span, text)
            case "float" | "double" if not {"signed", "unsigned"}.intersection(attributes):
                raise refuse("D_UNKNOWN", span, text)
            case kind if kind not in integers:
                sign = any(a in ("signed", "unsigned") for a in attributes)
                raise refuse("D_DECL_SIGNINT" if sign else "D_DECL_LONGINT", span, text)
    raise refuse("D_DECL_COMBO", span, text)
