"""Keep the names of a program so far: its variables, aggregations, types, inlines and translators.

Program order matters: D fixes a variable's type at its first assignment or declaration, and an aggregation's
function and key types at its first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from probekit.buffers.aggs import AggFuncName, AggPlan, KeyPart
from probekit.lang import ast, typed
from probekit.lang.builtins import DEFAULT_FRAMES
from probekit.lang.diagnostics import Diagnostic, refuse
from probekit.lang.source import Span
from probekit.lang.typed import TypedExpr, Var, VarScope
from probekit.lang.types import STRING_SIZE, IntType, StringType, Type
from probekit.lang.typetable import TypeTable
from probekit.lang.values import Translator, Value
from probekit.probe.names import ProbeDescription
from probekit.records import fresh, mutable_record, record

__all__ = ("NamedAggregation", "NamedInline", "Scope", "key_part")


MAX_DEPTH = 20
"""How deeply inlines and translators may use one another: expansion is recursive."""

MAX_EXPANSIONS = 20_000
"""How many inlines and translators one program may expand: without a bound each level can double the code."""

_CHEAP = (
    typed.Const,
    typed.StringConst,
    typed.BoundValue,
    typed.Load,
    typed.ReadBuiltin,
    typed.ReadArg,
    typed.AddressOfVariable,
)
"""Expressions that cost no more than a slot: they are evaluated again instead of being kept."""


@mutable_record
class NamedAggregation:
    """One aggregation."""

    index: int
    """Its number in the checked program."""
    name: str
    func: str
    """Its aggregating function."""
    keys: list[KeyPart]
    """How each key is laid out. A key widens when a later clause uses a wider compatible type."""
    params: tuple[int, ...] | None
    """The constants of a quantizing function; None until its first use is checked."""
    span: Span
    """Its first use."""

    def plan(self) -> AggPlan:
        """Return its layout, once the whole program is checked."""
        return AggPlan(self.index, self.name, cast(AggFuncName, self.func), tuple(self.keys), self.params or ())


@record
class NamedInline:
    """``inline type name[params] = value``."""

    name: str
    type: Type
    params: tuple[tuple[str, Type], ...]
    value: ast.Expr


@mutable_record
class Scope:
    """The names of one program, and the faults found in it."""

    types: TypeTable
    checker: Callable[[ast.Expr, Scope], Value]
    """:func:`probekit.lang.exprs.check`, which every part of the checker calls for operands."""
    string_size: int = STRING_SIZE
    """The option ``strsize``, in bytes."""
    variables: dict[tuple[VarScope, str], Var] = fresh(dict)
    """By scope and name."""
    aggregations: dict[str, NamedAggregation] = fresh(dict)
    inlines: dict[str, NamedInline] = fresh(dict)
    translators: list[Translator] = fresh(list)
    providers: set[str] = fresh(set)
    """The providers that the script declares."""
    diagnostics: list[Diagnostic] = fresh(list)
    probes: tuple[ProbeDescription, ...] = ()
    """The descriptions of the clause that is being checked; empty outside of clauses."""
    creating: bool = False
    """Elements that are missing are made, because a member of them is being assigned."""
    coming: set[str] = fresh(set)
    """Variables that the assignment being checked will define."""
    expansions: int = 0
    """How many inlines and translators were expanded so far."""
    has_target: bool = False
    """``-c`` or ``-p`` names a process."""
    frames: dict[str, int] = fresh(lambda: dict(DEFAULT_FRAMES))
    """How many frames ``stack()``, ``ustack()`` and ``jstack()`` record."""
    bound: list[dict[str, Value]] = fresh(list)
    """What names stand for inside the inlines and translators that are being expanded, innermost last."""
    included: Callable[[int], bool] = lambda _: False
    """Tells whether an offset lies in an included C header."""
    _slots: int = 0
    """How many numbers :meth:`slot` has given out."""

    def check(self, expr: ast.Expr) -> Value:
        """Check an expression with these names. Raises :class:`Refusal`."""
        return self.checker(expr, self)

    def variable(self, scope: VarScope, name: str) -> Var | None:
        """Return the variable, or None."""
        return self.variables.get((scope, name))

    def define(self, scope: VarScope, name: str, t: Type, keys: tuple[Type, ...] | None = None) -> Var:
        """Define a new variable."""
        var = Var(len(self.variables), name, scope, t, keys)
        self.variables[scope, name] = var
        return var

    def slot(self) -> int:
        """Return a new number for a :class:`typed.Bind`."""
        self._slots += 1
        return self._slots - 1

    def expanding(self, names: dict[str, Value], span: Span) -> None:
        """Begin to expand an inline or translator, with the values of its names.

        Raises :class:`Refusal` when expansion is too deep or too frequent. The caller pops :attr:`bound`.
        """
        self.expansions += 1
        if len(self.bound) >= MAX_DEPTH:
            raise refuse("D_SYNTAX", span, f"inlines and translators are nested more than {MAX_DEPTH} levels deep")
        if self.expansions > MAX_EXPANSIONS:
            raise refuse("D_SYNTAX", span, f"inlines and translators are used more than {MAX_EXPANSIONS} times")
        self.bound.append(names)

    def once(self, value: Value) -> tuple[Value, Callable[[TypedExpr], TypedExpr]]:
        """Return a value that is evaluated once however often it is used, and a function to wrap its users."""
        node = value.node
        if isinstance(node, _CHEAP):
            return value, lambda body: body
        number = self.slot()
        kept = Value(typed.BoundValue(number, node.type), value.type, value.place)
        return kept, lambda body: typed.Bind(number, node, body, body.type)

    def bound_value(self, name: str) -> Value | None:
        """Return what a name stands for inside an inline or translator, or None."""
        return self.bound[-1].get(name) if self.bound else None

    def known_aggregation(self, name: str, func: str, parts: list[KeyPart], span: Span) -> NamedAggregation:
        """Return the aggregation, new or known. Refuses another function or other keys than before."""
        known = self.aggregations.get(name)
        if known is None:
            known = NamedAggregation(len(self.aggregations), name, func, parts, None, span)
            self.aggregations[name] = known
            return known
        if known.func != func:
            raise refuse("D_AGG_REDEF", span, f"@{name} is {known.func}() elsewhere and cannot be {func}() too")
        if len(known.keys) != len(parts):
            message = f"@{name} has {len(known.keys)} keys elsewhere, not {len(parts)}"
            raise refuse("D_PROTO_LEN", span, message)
        known.keys = [
            _join(name, i, old, new, span) for i, (old, new) in enumerate(zip(known.keys, parts, strict=True))
        ]
        return known


def key_part(key: TypedExpr) -> KeyPart:
    """Return the layout of a key that nothing else constrains."""
    match key:
        case typed.ReadBuiltin(name=name, type=StringType()) if name.startswith("probe"):
            return KeyPart("probe", detail=name)
        case typed.ReadBuiltin(type=StringType(size=size)):
            return KeyPart("string", size=size)
    match key.type:
        case IntType(bits=bits, signed=signed):
            return KeyPart("int" if signed else "uint", bits=bits)
        case StringType(size=size):
            return KeyPart("string", size=max(size, STRING_SIZE))


def _join(name: str, index: int, old: KeyPart, new: KeyPart, span: Span) -> KeyPart:
    if old == new:
        return old
    texts = ("string", "probe")
    stacks = "stack" in (old.kind, new.kind) or old.detail != new.detail
    if (old.kind in texts) != (new.kind in texts) or (stacks and old.kind not in texts):
        message = f"key {index + 1} of @{name} is {_kind(old)} elsewhere, not {_kind(new)}"
        raise refuse("D_PROTO_ARG", span, message)
    if old.kind in texts:
        sizes = [STRING_SIZE if part.kind == "probe" else part.size for part in (old, new)]
        return KeyPart("string", size=max(sizes))
    wider, other = (old, new) if old.bits >= new.bits else (new, old)
    if wider.kind == other.kind or (wider.kind == "int" and wider.bits > other.bits):
        return wider
    return KeyPart("int")


def _kind(part: KeyPart) -> str:
    return "an integer" if part.kind in ("int", "uint") else "a string"
