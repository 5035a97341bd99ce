"""Run the front end: from a script's text to a checked program.

Statements are checked one by one, so that one run finds several faults. A syntax error ends the run at once.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol, TypeVar, assert_never

from probekit.lang import ast, library, typed
from probekit.lang.action_order import check_order
from probekit.lang.actions import action
from probekit.lang.aggcalls import aggregate
from probekit.lang.builtins import DEFAULT_FRAMES
from probekit.lang.declare import declare
from probekit.lang.diagnostics import CompileError, Diagnostic, Refusal, refuse
from probekit.lang.exprs import make_scope
from probekit.lang.functions import check_prototype, find_function
from probekit.lang.kernelside import KernelSide, NoKernel
from probekit.lang.operators import choose, chosen, condition, constant_of, decided, describe, truth
from probekit.lang.parse.macros import Macros, MacroUses
from probekit.lang.parse.parser import parse
from probekit.lang.pragmas import check_pragmas
from probekit.lang.scan import Option, Scanned, scan
from probekit.lang.scope import Scope
from probekit.lang.source import NOWHERE, Source, Span
from probekit.lang.split import split_clauses
from probekit.lang.typed import CheckedClause, CheckedProgram, TypedStatement
from probekit.lang.types import INT, STRING_SIZE
from probekit.lang.values import Value
from probekit.probe.names import DescriptionError, ProbeDescription
from probekit.records import record, replaced

__all__ = ("MAX_DIAGNOSTICS", "check_program")

MAX_DIAGNOSTICS = 20
"""After this many faults the rest of the script is not checked: later faults often follow from earlier ones."""

_LONGEST_ID = 10


def check_program(
    source: Source,
    *,
    allow_bare: bool = False,
    allow_empty: bool = False,
    macros: Macros | None = None,
    string_size: int | None = None,
    frames: Mapping[str, int] | None = None,
    kernel: KernelSide | None = None,
    can_match: Callable[[ProbeDescription], bool] | None = None,
    libraries: int = 0,
    parts: Sequence[int] = (),
) -> CheckedProgram:
    """Parse and check a script. Raises :class:`CompileError` with every fault found.

    ``allow_bare``: probe descriptions without a clause are allowed (``-n``). ``allow_empty``: the option ``empty``.
    ``string_size`` (bytes) and ``frames`` (by function): the options ``strsize`` and ``stackframes`` ..., for a script
    that does not set them itself. ``kernel``: the guest's. ``can_match``: tells whether any probe may match a
    description; None when that is not known yet; the option ``zdefs`` allows any. ``libraries``: the offset where the D
    libraries end and the script begins. ``parts``: the offsets where further scripts of the command line begin; each
    sees what those before it have named, and only the faults of the first faulty one are reported.
    """
    macros, uses = macros or Macros(), MacroUses()
    kernel = kernel or NoKernel()

    def check_until(end: int) -> None:
        """Check the scripts that end at an offset, for their own faults."""
        check_program(
            Source(source.text[:end], source.name),
            allow_bare=allow_bare,
            allow_empty=allow_empty,
            macros=replaced(macros, unused=True),
            string_size=string_size,
            frames=frames,
            kernel=kernel,
            can_match=can_match,
            libraries=libraries,
            parts=[start for start in parts if start < end],
        )

    try:
        _check_closed(source, parts)
        scanned = scan(source)
        scope = make_scope(_string_size(scanned.options, string_size), kernel)
        scope.included = source.included
        scope.has_target = bool(macros.values.get("target"))
        scope.frames |= {**(frames or {}), **_frames(scanned.options)}
        types = _use_library(scope) if library.is_named_in(scanned.text) else ()
        script = parse(scanned.text, _with_options(macros, scanned.options), uses, types, kernel)
    except Refusal as refusal:
        part = bisect_right(parts, refusal.diagnostic.span.start)
        if part:
            check_until(parts[part - 1])  # an earlier script may have faults of its own, or not be closed
        raise CompileError((refusal.diagnostic,), source, part) from refusal
    if uses.first_default is not None and not macros.default_args:
        setting = min(option.span.start for option in scanned.options if option.name == "defaultargs")
        begin = (0, *parts)[bisect_right(parts, setting)]
        if uses.first_default < begin:  # an option holds for its own script and later ones
            check_until(begin)
    for item in script.items:
        crossed = bisect_right(parts, item.span.start)
        if crossed < len(parts) and item.span.end > parts[crossed]:
            check_until(parts[crossed])
    clauses = _check_parts(
        script.items,
        scanned,
        scope,
        _ScriptBounds(source, parts, libraries),
        _Permissions(bare=allow_bare, empty=allow_empty, can_match=can_match),
    )
    if unused := list(uses.unused(_with_options(macros, scanned.options))):
        raise CompileError(unused, source, len(parts))
    checked = CheckedProgram(
        clauses=tuple(clauses),
        variables=tuple(scope.variables.values()),
        aggregations=tuple(a.plan() for a in scope.aggregations.values()),
        options=scanned.options,
        string_size=scope.string_size,
    )
    return split_clauses(checked)


@record
class _ScriptBounds:
    """The scripts of the command line in one text."""

    source: Source
    starts: Sequence[int]
    """The offsets of all but the first."""
    libraries: int
    """The offset where the D libraries end and the first script begins."""


@record
class _Permissions:
    """What a script may do. See :func:`check_program`."""

    bare: bool
    empty: bool
    can_match: Callable[[ProbeDescription], bool] | None


def _check_parts(
    items: Sequence[ast.TopLevel], scanned: Scanned, scope: Scope, parts: _ScriptBounds, allowed: _Permissions
) -> list[CheckedClause]:
    """Check one script after the other. Raises :class:`CompileError` with the faults of the first faulty one."""
    clauses: list[CheckedClause] = []
    empty, permitted, lenient = True, allowed.empty, False
    left, options, pragmas = deque(items), deque(scanned.options), deque(scanned.pragmas)
    for part, end in enumerate((*parts.starts, len(parts.source.text) + 1)):
        own = _take_until(end, left)
        for option in _take_until(end, options):
            lenient, permitted = lenient or option.name == "zdefs", permitted or option.name == "empty"
        clauses += _items(own, scope, allow_bare=allowed.bare, can_match=None if lenient else allowed.can_match)
        own_pragmas = _take_until(end, pragmas)
        if not scope.diagnostics:
            with _collecting(scope):
                check_pragmas(own_pragmas, scope, parts.libraries)
        empty = empty and all(isinstance(item, ast.Declaration) for item in own)  # DTrace does not count declarations
        if not scope.diagnostics and empty and not permitted:
            scope.diagnostics.append(Diagnostic("D_EMPTY", NOWHERE, "the program is empty"))
        if scope.diagnostics:
            raise CompileError(scope.diagnostics, parts.source, part)
    return clauses


class _HasSpan(Protocol):
    @property
    def span(self) -> Span: ...


_P = TypeVar("_P", bound=_HasSpan)


def _take_until(end: int, things: deque[_P]) -> list[_P]:
    """Take those from the front that begin before an offset."""
    taken: list[_P] = []
    while things and things[0].span.start < end:
        taken.append(things.popleft())
    return taken


def _check_closed(source: Source, parts: Sequence[int]) -> None:
    """Raise :class:`Refusal` for a comment that one script opens and a later one closes."""
    if not parts:
        return
    for start, end in pairwise((0, *parts, len(source.text))):
        try:
            scan(Source(source.text[start:end], source.name))
        except Refusal as refusal:
            found = refusal.diagnostic
            span = Span(found.span.start + start, found.span.end + start)
            raise Refusal(replaced(found, span=span)) from refusal


_SIZE = re.compile(r"([0-9]{1,9})([kKmM]?)")
_LARGEST_STRING = 1 << 20


def _string_size(options: tuple[Option, ...], given: int | None) -> int:
    """Return the size that the last ``#pragma D option strsize`` sets."""
    size = given or STRING_SIZE
    for option in options:
        if option.name != "strsize":
            continue
        found = _SIZE.fullmatch(option.value)
        if found is None:
            raise refuse("D_PRAGMA_OPTSET", option.span, f"strsize takes a size such as 512 or 1k, not {option.value}")
        size = int(found[1]) << {"k": 10, "m": 20}.get(found[2].lower(), 0)
    return min(max(size, 2), _LARGEST_STRING)


def _frames(options: tuple[Option, ...]) -> dict[str, int]:
    """Return ``stackframes=5`` as ``{"stack": 5}``. The option table refuses values that are not numbers."""
    known = {f"{name}frames": name for name in DEFAULT_FRAMES}
    return {known[o.name]: int(o.value[:9]) for o in options if o.name in known and o.value.isdecimal()}


def _use_library(scope: Scope) -> tuple[str, ...]:
    """Declare DTrace's own library. Returns the names of its types."""
    for item in parse(library.LIBRARY, Macros(), MacroUses()).items:
        if not isinstance(item, ast.ClauseDef):
            declare(item, scope)
    return library.TYPES


def _is_set(name: str, options: tuple[Option, ...]) -> bool:
    return any(option.name == name for option in options)


def _with_options(macros: Macros, options: tuple[Option, ...]) -> Macros:
    return replaced(
        macros,
        default_args=macros.default_args or _is_set("defaultargs", options),
        unused=macros.unused or _is_set("argref", options),
    )


CanMatch = Callable[[ProbeDescription], bool]


def _items(
    items: Sequence[ast.TopLevel], scope: Scope, *, allow_bare: bool, can_match: CanMatch | None
) -> list[CheckedClause]:
    # As in DTrace, all declarations take effect before the first clause is checked.
    for item in items:
        if not isinstance(item, ast.ClauseDef):
            with _collecting(scope):
                declare(item, scope)
    clauses: list[CheckedClause] = []
    for item in items:
        if len(scope.diagnostics) >= MAX_DIAGNOSTICS:
            break
        if isinstance(item, ast.ClauseDef):
            clauses.append(_clause(item, scope, allow_bare=allow_bare, can_match=can_match))
    return clauses


@contextmanager
def _collecting(scope: Scope) -> Iterator[None]:
    """Collect a refusal raised inside the ``with``, and go on after it."""
    try:
        yield
    except Refusal as refusal:
        scope.diagnostics.append(refusal.diagnostic)


# Clauses.


_UNDEFINED = frozenset(("D_IDENT_UNDEF", "D_VAR_UNDEF"))


def _clause(clause: ast.ClauseDef, scope: Scope, *, allow_bare: bool, can_match: CanMatch | None) -> CheckedClause:
    probes: list[ProbeDescription] = []
    before = len(scope.diagnostics)
    for probe in clause.probes:
        with _collecting(scope):
            probes.append(_probe(probe, can_match))
    unmatched = len(scope.diagnostics)
    scope.probes = tuple(probes)
    with _collecting(scope):
        _check_bare(clause, allow_bare=allow_bare)
    found = len(scope.diagnostics)
    statements = _statements(clause, scope)
    failed = scope.diagnostics[found:]
    if clause.predicate is not None and failed and failed[0].tag in _UNDEFINED:
        # The predicate may define the variable that the actions miss: then it is checked first, as in DTrace.
        del scope.diagnostics[found:]
        predicate = _predicate(clause, scope)
        statements = _statements(clause, scope)
    else:
        predicate = _predicate(clause, scope)
    if unmatched > before:
        del scope.diagnostics[unmatched:]  # faults in a clause without probes do not matter
    scope.probes = ()
    default = all(isinstance(s, ast.Empty) for s in (clause.body.statements if clause.body else ()))
    return CheckedClause(tuple(probes), predicate, tuple(s for s, _ in statements), default, clause.span)


def _predicate(clause: ast.ClauseDef, scope: Scope) -> typed.TypedExpr | None:
    with _collecting(scope):
        if clause.predicate is not None:
            return truth(clause.predicate, scope, "D_PRED_SCALAR", "a predicate")
    return None


def _statements(clause: ast.ClauseDef, scope: Scope) -> list[tuple[TypedStatement, Span]]:
    statements: list[tuple[TypedStatement, Span]] = []
    for statement in clause.body.statements if clause.body else ():
        with _collecting(scope):
            statements.extend((made, statement.span) for made in _statement(statement, scope))
    with _collecting(scope):
        check_order(statements)
    return statements


def _probe(probe: ast.ProbeText, can_match: CanMatch | None) -> ProbeDescription:
    if probe.text.isdecimal() and len(probe.text) > _LONGEST_ID:
        raise refuse("D_PDESC_INVAL", probe.span, "probe ID is too large")
    try:
        description = ProbeDescription.parse(probe.text)
    except DescriptionError as error:
        raise refuse("D_PDESC_INVAL", probe.span, str(error)) from error
    if can_match is not None and not can_match(description):
        hint = "list the probes with -l, or allow it with -Z"
        if description.probe_id is not None:
            raise refuse("D_PDESC_INVAL", probe.span, f"there is no probe {description}", hint.partition(",")[0])
        message = f"probe description {description} does not match any probes"
        raise refuse("D_PDESC_ZERO", probe.span, message, hint)
    return description


def _check_bare(clause: ast.ClauseDef, *, allow_bare: bool) -> None:
    if clause.body is not None:
        return
    if clause.predicate is not None:
        raise refuse("D_SYNTAX", clause.span, "a predicate needs a clause after it: write { }")
    if not allow_bare:
        raise refuse("D_SYNTAX", clause.probes[-1].span, "a probe description needs a clause after it: write { }")


# Statements.


def _statement(statement: ast.Statement, scope: Scope) -> list[TypedStatement]:
    match statement:
        case ast.Empty():
            return []
        case ast.CompoundStatement():
            return [out for inner in statement.statements for out in _statement(inner, scope)]
        case ast.If():
            return [_if(statement, scope)]
        case ast.ExprStatement():
            return [_expression(statement.value, scope)]
        case _:
            assert_never(statement)


def _if(statement: ast.If, scope: Scope) -> TypedStatement:
    cond = truth(statement.cond, scope, "D_OP_SCALAR", "the condition of if")
    then = _statement(statement.then, scope)
    orelse = _statement(statement.orelse, scope) if statement.orelse else []
    check_order((made, statement.then.span) for made in then)
    if statement.orelse is not None:
        span = statement.orelse.span
        check_order((made, span) for made in orelse)
    return typed.IfElse(cond, tuple(then), tuple(orelse))


def _expression(expr: ast.Expr, scope: Scope) -> TypedStatement:
    match expr:
        case ast.AggRef():
            raise refuse("D_AGG_NULL", expr.span, f"@{expr.name} alone does nothing")
        case ast.Assign(target=ast.AggRef()):
            return aggregate(expr, scope)
        case ast.CallExpr() if (function := find_function(expr)) is not None and function.kind == "action":
            return action(expr, function, scope)
        case ast.CallExpr() if (function := find_function(expr)) is not None and function.kind == "aggregating":
            check_prototype(expr, function, scope)
            message = f"{function.name}() is no expression: write @name = {function.name}(...)"
            raise refuse("D_CG_EXPR", expr.span, message)
        case ast.Conditional():
            cond = condition(expr, scope)
            branch = chosen(expr, cond)
            if branch is None:
                return _evaluate(expr, choose(expr, cond, scope))
            return _expression(branch, scope) if _stands_alone(branch) else _evaluate(expr, scope.check(branch))
        case ast.Binary(op=("&&" | "||")) if _stands_alone(expr.right):
            return _logical_statement(expr, scope)
        case _:
            return _evaluate(expr, scope.check(expr))


def _stands_alone(expr: ast.Expr) -> bool:
    """Tell whether an expression has a meaning only as a statement: it is an action or updates an aggregation."""
    match expr:
        case ast.Assign(target=ast.AggRef()):
            return True
        case ast.Binary(op=("&&" | "||")):
            return _stands_alone(expr.right)
        case ast.Conditional():
            return _stands_alone(expr.then) or _stands_alone(expr.orelse)
        case _:
            function = find_function(expr)
            return function is not None and function.kind == "action"


def _logical_statement(expr: ast.Binary, scope: Scope) -> TypedStatement:
    """Check ``constant && action()`` or ``constant || action()``: the action stands alone, or is not there at all."""
    left = scope.check(expr.left)
    known = decided(expr.op, left)
    if known is not None:
        return typed.Evaluate(typed.Const(known, INT))
    if constant_of(left) is not None:
        return _expression(expr.right, scope)
    return _evaluate(expr, scope.check(expr))


def _evaluate(expr: ast.Expr, value: Value) -> TypedStatement:
    if value.action:
        raise refuse("D_CG_EXPR", expr.span, f"{describe(value)} may only stand alone as a statement")
    if value.dynamic:
        raise refuse("D_CG_DYN", expr.span, f"{value.dynamic} alone does nothing")
    return typed.Evaluate(value.node)
