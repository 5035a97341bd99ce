"""Check ``args[n]``: a probe's arguments, with the types that its function has.

    fbt::vfs_read:entry   args[0]   ->  arg0 as struct file *
    fbt::vfs_read:return  args[1]   ->  arg1 as ssize_t

All probes of a clause must agree on the type; where they differ, the clause is refused with D_ARGS_MULTI. Which of
``arg0`` ... ``arg9`` holds an argument follows the System V ABI of x86-64 (section 3.2.3): an integer or pointer
takes one register, a struct of up to 16 bytes one or two, and a larger struct lies on the stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probekit.errors import InternalError
from probekit.lang import typed
from probekit.lang.builtins import ARGS
from probekit.lang.diagnostics import refuse
from probekit.lang.kernelside import ProbeArguments, Unknown
from probekit.lang.scope import Scope
from probekit.lang.source import Span
from probekit.lang.types import INT64, IntType, Type, is_object, same, sizeof
from probekit.lang.values import FixedPlace, Value, convert, is_scalar, machine

__all__ = ("argument_places", "typed_argument")

_WORD = 8


def argument_places(types: Sequence[Type], in_registers: int = 6) -> tuple[int | None, ...]:
    """Return, for each argument, the N of the ``argN`` that holds it, or None if no single word holds it.

    ``in_registers``: how many of ``arg0`` ... ``arg9`` are registers; the others are words of the stack.
    """
    places: list[int | None] = []
    registers = stack = 0
    for t in types:
        words = -(-max(sizeof(t), 1) // _WORD)
        if words <= 2 and registers + words <= in_registers:
            first, registers = registers, registers + words
        else:
            first, stack = in_registers + stack, stack + words
        places.append(first if is_scalar(t) and first < ARGS else None)
    return tuple(places)


def typed_argument(index: int, span: Span, scope: Scope) -> Value:
    """Check ``args[index]`` in the clause that is being checked."""
    if not scope.probes:
        raise refuse("D_ARGS_NONE", span, "args[] exists only in a clause")
    first: ProbeArguments | None = None
    for found in _probes(scope, span):
        if first is None:
            first = found
        elif not _alike(first, found):
            message = f"args[] differs from probe to probe of this clause: {_shown(first)}, {_shown(found)}"
            raise refuse("D_ARGS_MULTI", span, message, "use arg0, arg1 ... and a cast, or fewer probes in a clause")
    if first is None:
        raise refuse("D_PDESC_ZERO", span, f"probe description {scope.probes[0]} does not match any probes")
    if isinstance(first.types, Unknown):
        raise refuse("D_ARGS_TYPE", span, f"the types of args[] of {first.probe} are not known: {first.types.reason}")
    if not 0 <= index < len(first.types):
        raise refuse("D_ARGS_IDX", span, f"{first.probe} has no args[{index}]")
    return _value(index, first.types, first.registers, span)


def _probes(scope: Scope, span: Span) -> Iterator[ProbeArguments]:
    for description in scope.probes:
        found = scope.types.kernel.arguments(description)
        if found is None:
            if len(scope.probes) > 1:
                raise refuse("D_ARGS_MULTI", span, "args[] may differ from probe to probe of this clause")
            yield ProbeArguments(str(description), ())
        else:
            yield from found


def _alike(a: ProbeArguments, b: ProbeArguments) -> bool:
    if isinstance(a.types, Unknown) or isinstance(b.types, Unknown):
        return isinstance(a.types, Unknown) and isinstance(b.types, Unknown)
    alike = a.registers == b.registers and len(a.types) == len(b.types)
    return alike and all(same(x, y) for x, y in zip(a.types, b.types, strict=True))


def _shown(arguments: ProbeArguments) -> str:
    types = "of unknown types" if isinstance(arguments.types, Unknown) else ", ".join(map(str, arguments.types))
    return f"{arguments.probe} ({types})"


def _value(index: int, types: Sequence[Type], registers: int, span: Span) -> Value:
    t = types[index]
    place = argument_places(types, registers)[index]
    if place is None:
        what = "a struct or union that is passed by value" if is_object(t) else f"{t}, beyond arg9 or in no register"
        raise refuse("D_ARGS_TYPE", span, f"args[{index}] is {what}")
    m = machine(t)
    if not isinstance(m, IntType):
        raise InternalError("what was checked to be an integer has another type")
    return Value(convert(typed.ReadArg(place, INT64), m), t, FixedPlace())
