"""What a program has named so far: its variables and aggregations, in program order.

D fixes a variable's type at its first assignment or declaration, and an
aggregation's function and key types at its first use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from probekit.buffers.aggs import AggFuncName, AggPlan, KeyPart
from probekit.lang import typed
from probekit.lang.diagnostics import Diagnostic, refuse
from probekit.lang.source import Span
from probekit.lang.typed import TypedExpr, Var, VarScope
from probekit.lang.types import STRING_SIZE, IntType, StringType

__all__ = ("Aggregation", "Scope", "key_part")


@dataclass(slots=True)
class Aggregation:
    """One aggregation. ``keys`` widen as later clauses use other, compatible types."""

    index: int
    name: str
    func: str
    keys: list[KeyPart]
    span: Span

    def plan(self) -> AggPlan:
        """Its layout, once the whole program is known."""
        return AggPlan(self.index, self.name, cast(AggFuncName, self.func), tuple(self.keys))


@dataclass(slots=True)
class Scope:
    """The names of one program, and the faults found in it."""

    variables: dict[tuple[VarScope, str], Var] = field(default_factory=dict)
    aggregations: dict[str, Aggregation] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def variable(self, scope: VarScope, name: str) -> Var | None:
        """The variable, or None."""
        return self.variables.get((scope, name))

    def define(self, scope: VarScope, name: str, t: IntType) -> Var:
        """A new variable."""
        var = Var(len(self.variables), name, scope, t)
        self.variables[scope, name] = var
        return var

    def aggregation(self, name: str, func: str, keys: tuple[TypedExpr, ...], span: Span) -> Aggregation:
        """The aggregation, new or known; its function and keys must be what they were."""
        parts = [key_part(key) for key in keys]
        known = self.aggregations.get(name)
        if known is None:
            known = Aggregation(len(self.aggregations), name, func, parts, span)
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
    """How one key is laid out when nothing else constrains it."""
    match key:
        case typed.Builtin(name=name, type=StringType()) if name.startswith("probe"):
            return KeyPart("probe", detail=name)
        case typed.Builtin(type=StringType(size=size)):
            return KeyPart("string", size=size)
    match key.type:
        case IntType(bits=bits, signed=signed):
            return KeyPart("int" if signed else "uint", bits=bits)
        case StringType():
            return KeyPart("string", size=STRING_SIZE)


def _join(name: str, index: int, old: KeyPart, new: KeyPart, span: Span) -> KeyPart:
    if old == new:
        return old
    texts = ("string", "probe")
    if (old.kind in texts) != (new.kind in texts):
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
