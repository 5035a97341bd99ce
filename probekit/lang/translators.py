"""Check translators, ``translator T < S *p > { m = e; };``, and ``xlate``, which uses them.

    xlate <info_t *> (p)->size   ->  the expression given for ``size``, with its parameter bound to p

A translated object (:class:`probekit.lang.values.TranslatedObject`) is never built: each member is evaluated where it
is used.
"""

from __future__ import annotations

from collections.abc import Callable

from probekit.lang import ast, typed
from probekit.lang.diagnostics import did_you_mean, refuse
from probekit.lang.operators import describe
from probekit.lang.scope import Scope
from probekit.lang.source import Span
from probekit.lang.typed import TypedExpr
from probekit.lang.types import MACHINE_POINTER, ArrayType, PointerType, StringType, StructType, Type, same
from probekit.lang.values import FixedPlace, TranslatedObject, Translator, Value, coerce, fits, is_integer, machine

__all__ = ("around", "declare", "member_value", "pointed_object", "source_once", "translate")


def translate(expr: ast.Xlate, scope: Scope) -> Value:
    """Check ``xlate <type> (operand)``."""
    wanted, value = scope.types.resolve(expr.type), scope.check(expr.operand)
    pointer = isinstance(wanted, PointerType)
    target = wanted.to if isinstance(wanted, PointerType) else wanted
    if not isinstance(target, StructType):
        raise refuse("D_XLATE_SOU", expr.span, f"xlate makes a struct or union, not {target}")
    if value.action or value.dynamic:
        raise refuse("D_XLATE_INCOMPAT", expr.operand.span, f"{describe(value)} cannot be translated")
    for translator in scope.translators:
        if same(translator.target, target) and _takes(translator.source, value):
            source = Value(coerce(value, translator.source), translator.source, FixedPlace())
            return _value(TranslatedObject(translator, source, pointer))
    raise refuse("D_XLATE_NONE", expr.span, f"no translator makes {target} of {describe(value)}")


def pointed_object(translated: TranslatedObject) -> Value:
    """Return the object that a translated pointer points at."""
    return _value(TranslatedObject(translated.translator, translated.source, False))


def member_value(translated: TranslatedObject, name: str, span: Span, scope: Scope) -> Value:
    """Return the value of one member. Raises :class:`Refusal` where the translator gives it none."""
    target = translated.translator.target
    found = target.find(name)
    if found is None:
        hint = did_you_mean(name, [m.name for m in target.members if m.name])
        raise refuse("D_TYPE_MEMBER", span, f"{target} has no member {name}", hint)
    expr = translated.translator.members.get(name)
    if expr is None:
        raise refuse("D_XLATE_NOCONV", span, f"the translator of {target} gives {name} no value")
    source, wrap = scope.once(translated.source)
    scope.expanding({translated.translator.parameter: source}, span)
    try:
        value = scope.check(expr)
    finally:
        scope.bound.pop()
    if value.translated is not None:
        return around(value.translated, wrap)
    if isinstance(found.type, ArrayType) and isinstance(value.type, StringType):
        return Value(wrap(value.node), value.type, FixedPlace())
    return Value(wrap(coerce(value, found.type)), found.type, FixedPlace())


def source_once(
    translated: TranslatedObject, scope: Scope
) -> tuple[TranslatedObject, Callable[[TypedExpr], TypedExpr]]:
    """Return the same object with its source evaluated once, and a function to wrap its users."""
    source, wrap = scope.once(translated.source)
    return TranslatedObject(translated.translator, source, translated.pointer), wrap


def around(translated: TranslatedObject, wrap: Callable[[TypedExpr], TypedExpr]) -> Value:
    """Return the same object with ``wrap`` around its source."""
    source = Value(wrap(translated.source.node), translated.source.type, translated.source.place)
    return _value(TranslatedObject(translated.translator, source, translated.pointer))


def _value(translated: TranslatedObject) -> Value:
    target: Type = translated.translator.target
    return Value(
        typed.Const(0, MACHINE_POINTER),
        PointerType(target) if translated.pointer else target,
        FixedPlace(),
        translated=translated,
    )


def _takes(source: Type, value: Value) -> bool:
    if is_integer(source) and is_integer(value.type):
        return True
    if isinstance(source, PointerType) and isinstance(value.type, ArrayType):
        return same(source.to, value.type.of)
    return same(source, value.type)


def declare(item: ast.TranslatorDecl, scope: Scope) -> None:
    """Declare a translator. Its members must exist, and their expressions must fit."""
    target = scope.types.resolve(item.target)
    if not isinstance(target, StructType):
        raise refuse("D_XLATE_SOU", item.target.span, f"a translator makes a struct or union, not {target}")
    if not target.complete:
        raise refuse("D_XLATE_SOU", item.target.span, f"{target} is not defined")
    source = scope.types.parameter(item.source)
    if any(same(t.target, target) and same(t.source, source.type) for t in scope.translators):
        raise refuse("D_XLATE_REDECL", item.span, f"there is a translator from {source.type} to {target} already")
    members: dict[str, ast.Expr] = {}
    translator = Translator(target, source.type, source.name, members)
    stand_in = Value(typed.BoundValue(-1, machine(source.type)), source.type, FixedPlace())
    for translation in item.members:
        found = target.find(translation.member)
        if found is None:
            message = f"{target} has no member {translation.member}"
            raise refuse("D_XLATE_MEMB", translation.span, message)
        if translation.member in members:
            message = f"{translation.member} is given twice"
            raise refuse("D_XLATE_MEMB", translation.span, message)
        scope.bound.append({source.name: stand_in})
        try:
            value = scope.check(translation.value)
        finally:
            scope.bound.pop()
        if value.translated is None and not fits(found.type, value):
            message = f"{translation.member} is {found.type}, not {describe(value)}"
            raise refuse("D_XLATE_INCOMPAT", translation.span, message)
        members[translation.member] = translation.value
    scope.translators.append(translator)
