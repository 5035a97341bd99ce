"""Turn a checked action and the numbers of its fields into what the consumer reads. Each action of D has an entry."""

from __future__ import annotations

from collections.abc import Callable

from probekit.buffers import actions as out
from probekit.buffers.actions import Action, SymbolKind
from probekit.buffers.formats import Format
from probekit.errors import InternalError, required
from probekit.lang.typed import ActionCall

__all__ = ("make_action",)

_Fields = tuple[int, ...]


def make_action(act: ActionCall, fields: _Fields) -> Action:
    """Return the consumer's form of an action. ``fields``: the numbers of its fields in the record, in order."""
    return _MAKERS[act.action](act, fields)


def _format(act: ActionCall) -> Format:
    return required(act.format, f"the format of {act.action}()")


def _print(act: ActionCall, fields: _Fields) -> Action:
    if act.shape is None:
        raise InternalError("the shape of print() is missing")
    return out.Print(fields[0], act.shape, _second(fields))


def _symbol(kind: SymbolKind) -> Callable[[ActionCall, _Fields], Action]:
    return lambda _act, fields: out.SymbolAction(kind, fields[0])


def _second(fields: _Fields) -> int | None:
    return fields[1] if len(fields) > 1 else None


_MAKERS: dict[str, Callable[[ActionCall, _Fields], Action]] = {
    "breakpoint": lambda _act, _fields: out.Breakpoint(),
    "chill": lambda _act, fields: out.Chill(fields[0]),
    "clear": lambda act, _fields: out.Clear(act.aggs[0]),
    "commit": lambda _act, fields: out.Commit(fields[0]),
    "denormalize": lambda act, _fields: out.Denormalize(act.aggs[0]),
    "discard": lambda _act, fields: out.Discard(fields[0]),
    "exit": lambda _act, fields: out.Exit(fields[0]),
    "freopen": lambda act, fields: out.Freopen(_format(act), fields),
    "ftruncate": lambda _act, _fields: out.Ftruncate(),
    "func": _symbol("func"),
    "jstack": lambda _act, fields: out.Stack(fields[0], user=True),
    "mod": _symbol("mod"),
    "normalize": lambda act, fields: out.Normalize(act.aggs[0], fields[0]),
    "panic": lambda _act, _fields: out.Panic(),
    "print": _print,
    "printa": lambda act, _fields: out.Printa(act.format, act.aggs),
    "printf": lambda act, fields: out.Printf(_format(act), fields),
    "raise": lambda _act, fields: out.Raise(fields[0]),
    "setopt": lambda _act, fields: out.Setopt(fields[0], _second(fields)),
    "speculate": lambda _act, fields: out.Speculate(fields[0]),
    "stack": lambda _act, fields: out.Stack(fields[0]),
    "stop": lambda _act, _fields: out.Stop(),
    "sym": _symbol("sym"),
    "system": lambda act, fields: out.System(_format(act), fields),
    "trace": lambda _act, fields: out.TraceAction(fields[0]),
    "tracemem": lambda _act, fields: out.Tracemem(fields[0], _second(fields)),
    "trunc": lambda act, fields: out.Trunc(act.aggs[0], fields[0] if fields else None),
    "uaddr": _symbol("uaddr"),
    "ufunc": _symbol("ufunc"),
    "umod": _symbol("umod"),
    "ustack": lambda _act, fields: out.Stack(fields[0], user=True),
    "usym": _symbol("usym"),
}
