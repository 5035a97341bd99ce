"""Types as written to types as known: ``unsigned long int`` -> 64 bits, unsigned."""

from __future__ import annotations

from probekit.lang import ast
from probekit.lang.diagnostics import did_you_mean, not_yet, refuse
from probekit.lang.types import STRING, TYPE_NAMES, VOID, IntType, Type
from probekit.lang.words import BASE_TYPES

__all__ = ("resolve",)

_QUALIFIERS = frozenset(("const", "volatile"))

# Specifiers, sorted, without qualifiers and a redundant "signed"/"int", to (name, bits, signed).
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


def resolve(name: ast.TypeName) -> Type:
    """The type that a type name stands for. Raises :class:`Refusal`."""
    words = [w for w in name.words if w not in _QUALIFIERS]
    if name.stars:
        raise not_yet(name.span, "pointer types are")
    for word in words:
        if " " in word:
            raise not_yet(name.span, f"{word.split()[0]} types are")
        if word in ("float", "double"):
            raise not_yet(name.span, "floating-point types are")
    if len(words) == 1 and words[0] in TYPE_NAMES:
        return TYPE_NAMES[words[0]]
    if unknown := [w for w in words if w not in BASE_TYPES]:
        if unknown[0] in TYPE_NAMES:
            raise refuse("D_DECL_COMBO", name.span, f"{' '.join(words)} is not a type")
        raise refuse("D_TYPE_ERR", name.span, f"unknown type {unknown[0]}", did_you_mean(unknown[0], TYPE_NAMES))
    match words:
        case ["string"]:
            return STRING
        case ["void"]:
            return VOID
    return _integer(name, words)


def _integer(name: ast.TypeName, words: list[str]) -> IntType:
    message = f"{' '.join(name.words)} is not a type"
    if {"signed", "unsigned"} <= set(words) or words.count("signed") > 1 or words.count("unsigned") > 1:
        raise refuse("D_DECL_COMBO", name.span, message)
    if not words:
        raise refuse("D_DECL_IDENT", name.span, message)
    core = sorted(w for w in words if w not in ("signed", "int"))
    t = _INTEGERS.get(tuple(core))
    if t is None or words.count("int") > 1 or ("int" in words and "char" in words):
        tag = "D_DECL_SIGNINT" if "void" in words or "string" in words else "D_DECL_COMBO"
        raise refuse(tag, name.span, message)
    return t
