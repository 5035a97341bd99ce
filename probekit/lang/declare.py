"""Check what stands outside of clauses: declarations, inlines, translators, providers."""

from __future__ import annotations

from probekit.lang import ast, translators, typed
from probekit.lang.builtins import FUNCTIONS, VARIABLES
from probekit.lang.diagnostics import refuse
from probekit.lang.operators import describe
from probekit.lang.scope import NamedInline, Scope
from probekit.lang.typed import VarScope
from probekit.lang.types import (
    REDEFINABLE_NAMES,
    TYPE_NAMES,
    ArrayType,
    EnumType,
    FuncType,
    IntType,
    StringType,
    StructType,
    Type,
    VoidType,
    is_object,
    same,
    sizeof,
)
from probekit.lang.typetable import Declared
from probekit.lang.values import FixedPlace, Value, fits, is_string_like, machine
from probekit.lang.variables import is_key

__all__ = ("declare",)

_MOST_PROBE_ARGS = 32


def declare(item: ast.Declaration | ast.InlineDecl | ast.TranslatorDecl | ast.ProviderDecl, scope: Scope) -> None:
    """Check one item and declare its names. Raises :class:`Refusal`."""
    match item:
        case ast.Declaration():
            _declaration(item, scope)
        case ast.InlineDecl():
            _inline(item, scope)
        case ast.TranslatorDecl():
            translators.declare(item, scope)
        case ast.ProviderDecl():
            _provider(item, scope)


def _storage(specs: ast.Specs) -> str:
    if len(specs.storage) > 1:
        raise refuse("D_DECL_CLASS", specs.span, f"{' and '.join(specs.storage)} cannot stand together")
    return specs.storage[0] if specs.storage else ""


def _declaration(item: ast.Declaration, scope: Scope) -> None:
    storage = _storage(item.specs)
    base = scope.types.specified(item.specs)
    if not item.declarators:
        if not item.specs.tagged or storage not in ("", "typedef"):
            raise refuse("D_DECL_USELESS", item.span, "this declares nothing")
        return
    for declarator in item.declarators:
        declared = scope.types.declared(base, declarator, item.span)
        function = isinstance(declared.type, FuncType) and declared.keys is None
        if storage in ("auto", "register") or (storage == "static" and not function):
            raise refuse("D_DECL_BADCLASS", item.specs.span, f"D has no {storage} variables")
        if storage == "typedef":
            _typedef(declared, scope)
        elif storage == "extern":
            _variable(declared, "global", scope, extern=True)
        else:
            where: VarScope = "self" if storage == "self" else "local" if storage == "this" else "global"
            _variable(declared, where, scope)


def _typedef(declared: Declared, scope: Scope) -> None:
    if declared.scoped:
        raise refuse("D_DECL_SCOPE", declared.span, "a type's name cannot have a scope")
    if declared.keys is not None:
        raise refuse("D_DECL_DYNOBJ", declared.span, "an associative array is not a type")
    name = declared.name
    if name in VARIABLES or name in scope.inlines or scope.variable("global", name) is not None:
        raise refuse("D_DECL_IDRED", declared.span, f"{name} is a variable already")
    if (
        name in scope.types.typedefs
        and not _is_redefinable(name, scope)
        and not _is_redeclared_by_header(declared, scope)
    ):
        raise refuse("D_DECL_IDRED", declared.span, f"{name} is a type already")
    t: Type = declared.type
    if isinstance(t, IntType):
        t = IntType(declared.name, t.bits, t.signed, t.means or t.name)
    elif isinstance(t, StructType) and not t.name and not t.alias:
        t.alias = declared.name
    scope.types.typedefs[declared.name] = t


def _is_redefinable(name: str, scope: Scope) -> bool:
    """Tell whether a name has the meaning that D gave it, and a script may give it another."""
    return name in REDEFINABLE_NAMES and scope.types.typedefs[name] is TYPE_NAMES[name]


def _is_redeclared_by_header(declared: Declared, scope: Scope) -> bool:
    """Tell whether a C header declares again what D defines by itself."""
    name = declared.name
    return scope.types.typedefs[name] is TYPE_NAMES.get(name) and scope.included(declared.span.start)


def _variable(declared: Declared, where: VarScope, scope: Scope, *, extern: bool = False) -> None:
    name, t = declared.name, declared.type
    if declared.scoped:
        raise refuse("D_DECL_SCOPE", declared.span, "a variable's name cannot have a scope")
    if declared.keys is not None and where == "local":
        raise refuse("D_DECL_LOCASSC", declared.span, f"this->{name} cannot be an associative array")
    if where == "global" and (name in VARIABLES or name in FUNCTIONS or name in scope.inlines):
        raise refuse("D_DECL_IDRED", declared.span, f"{name} is defined already")
    if name in scope.types.typedefs and not _is_redefinable(name, scope):
        raise refuse("D_DECL_TYPERED", declared.span, f"{name} is a type already")
    if isinstance(t, VoidType):
        raise refuse("D_DECL_VOIDOBJ", declared.span, f"{name} cannot be void")
    if isinstance(t, (StructType, EnumType)) and not t.complete:
        raise refuse("D_DECL_INCOMPLETE", declared.span, f"{t} is not defined")
    for key in declared.keys or ():
        if not is_key(key, scope.string_size):
            raise refuse("D_KEY_TYPE", declared.span, f"a {key} cannot be a key")
    if isinstance(t, FuncType):
        if extern or where == "global":
            return  # a prototype defines nothing
        raise refuse("D_DECL_DYNOBJ", declared.span, f"{name} cannot be a function")
    if is_object(t) and sizeof(t, scope.string_size) == 0:
        raise refuse("D_DECL_DYNOBJ", declared.span, f"{name} cannot be {t}")
    keys = None if declared.keys is None else tuple(_key(k, scope) for k in declared.keys)
    known = scope.variable(where, name)
    if known is not None and not (same(known.type, t) and _same_keys(known.keys, keys)):
        raise refuse("D_DECL_IDRED", declared.span, f"{name} is {known.type} already and cannot be {t}")
    if known is None:
        scope.define(where, name, t, keys)


def _key(t: Type, scope: Scope) -> Type:
    return StringType(scope.string_size) if is_string_like(t) else t


def _same_keys(a: tuple[Type, ...] | None, b: tuple[Type, ...] | None) -> bool:
    if a is None or b is None:
        return a is b
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _inline(item: ast.InlineDecl, scope: Scope) -> None:
    if _storage(item.specs):
        raise refuse("D_DECL_BADCLASS", item.specs.span, f"an inline cannot be {item.specs.storage[0]}")
    base = scope.types.specified(item.specs)
    declared = scope.types.declared(base, item.declarator, item.span)
    name, t = declared.name, declared.type
    if declared.scoped:
        raise refuse("D_DECL_SCOPE", declared.span, "an inline's name cannot have a scope")
    if isinstance(t, ArrayType):
        raise refuse("D_DECL_ARRNULL", declared.span, f"{name}[] needs parameters: an inline is no array")
    if isinstance(t, VoidType):
        raise refuse("D_DECL_VOIDOBJ", declared.span, f"{name} cannot be void")
    taken = name in VARIABLES or name in FUNCTIONS or name in scope.inlines
    if taken or scope.variable("global", name) is not None:
        raise refuse("D_DECL_IDRED", declared.span, f"{name} is defined already")
    for parameter, key in declared.params:
        if not parameter:
            raise refuse("D_DECL_PROTO_NAME", declared.span, f"a parameter of {name}[] has no name")
        if isinstance(key, VoidType):
            raise refuse("D_DECL_PROTO_TYPE", declared.span, f"{parameter} of {name}[] cannot be void")
    stand_ins = {p: Value(typed.BoundValue(-1, machine(k)), k, FixedPlace()) for p, k in declared.params}
    scope.bound.append(stand_ins)
    try:
        value = scope.check(item.value)
    finally:
        scope.bound.pop()
    if value.translated is None and not fits(t, value):
        raise refuse("D_OP_INCOMPAT", item.value.span, f"{name} is {t}, not {describe(value)}")
    scope.inlines[name] = NamedInline(name, t, declared.params, item.value)


def _provider(item: ast.ProviderDecl, scope: Scope) -> None:
    if item.name[-1].isdigit():
        raise refuse("D_PROV_BADNAME", item.span, f"a provider's name cannot end in a digit: {item.name}")
    if item.name in scope.providers:
        raise refuse("D_PROV_INCOMPAT", item.span, f"provider {item.name} is declared already")
    names: set[str] = set()
    for probe in item.probes:
        if probe.name in names:
            raise refuse("D_PROV_PRDUP", probe.span, f"probe {probe.name} is declared twice")
        names.add(probe.name)
        _probe(probe, scope)
    scope.providers.add(item.name)


def _probe(probe: ast.Provided, scope: Scope) -> None:
    native = _probe_args(probe.args, probe, scope)
    if probe.translated is None:
        return
    by_name = {d.name: d for d in native if d.name}
    for declared in _probe_args(probe.translated, probe, scope):
        if declared.name not in by_name:
            raise refuse("D_DECL_PROTO_FORM", declared.span, f"{declared.name or 'a parameter'} is no argument of it")
        source = by_name[declared.name].type
        stand_in = Value(typed.BoundValue(-1, machine(source)), source)
        if not fits(declared.type, stand_in) and not _translates(source, declared.type, scope):
            message = f"nothing translates {source} to {declared.type}"
            raise refuse("D_PROV_PRXLATOR", declared.span, message)


def _probe_args(params: ast.Params | None, probe: ast.Provided, scope: Scope) -> list[Declared]:
    if params is None:
        return []
    if params.variadic:
        raise refuse("D_DECL_PROTO_VARARGS", probe.span, "a probe's arguments cannot end in ...")
    if len(params.params) > _MOST_PROBE_ARGS:
        raise refuse("D_PROV_PRARGLEN", probe.span, f"a probe has at most {_MOST_PROBE_ARGS} arguments")
    found = [scope.types.parameter(p) for p in params.params]
    for declared in found:
        if isinstance(declared.type, VoidType):
            if len(found) > 1:
                raise refuse("D_DECL_PROTO_VOID", declared.span, "void must be the only parameter")
            if declared.name:
                raise refuse("D_DECL_PROTO_NAME", declared.span, "a void parameter cannot have a name")
            return []
    return found


def _translates(source: Type, target: Type, scope: Scope) -> bool:
    wanted = getattr(target, "to", target)
    return any(same(t.target, wanted) and same(t.source, source) for t in scope.translators)
