"""The front end as one function: a script's text to a checked program.

Statements are checked one by one, so that several faults are found in one run; a
syntax error ends it at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

from probekit.lang import ast, typed
from probekit.lang.builtins import FUNCTIONS, VARIABLES
from probekit.lang.calls import action, aggregate, find_function
from probekit.lang.diagnostics import CompileError, Diagnostic, Refusal, not_yet, refuse
from probekit.lang.exprs import check, check_scalar
from probekit.lang.macros import Macros, MacroUses
from probekit.lang.parser import parse
from probekit.lang.scan import Option, scan
from probekit.lang.scope import Scope
from probekit.lang.source import NOWHERE, Source
from probekit.lang.split import split_clauses
from probekit.lang.typed import CheckedClause, CheckedProgram, TypedStatement
from probekit.lang.typenames import resolve
from probekit.lang.types import IntType, StringType, same
from probekit.probe.names import DescriptionError, ProbeDescription

__all__ = ("MAX_DIAGNOSTICS", "check_program")

MAX_DIAGNOSTICS = 20
"""After so many faults the rest is not looked at: they are rarely independent."""

_LONGEST_ID = 10


def check_program(source: Source, *, allow_bare: bool = False, macros: Macros | None = None) -> CheckedProgram:
    """Parse and check a script. ``allow_bare``: probes without a clause are allowed (``-n``).

    Raises :class:`CompileError` with every fault found.
    """
    macros, uses = macros or Macros(), MacroUses()
    try:
        scanned = scan(source)
        script = parse(scanned.text, _with_options(macros, scanned.options), uses)
    except Refusal as refusal:
        raise CompileError((refusal.diagnostic,), source) from refusal
    scope = Scope()
    clauses = _items(script, scope, allow_bare=allow_bare)
    if not scope.diagnostics and not script.items:
        scope.diagnostics.append(Diagnostic("D_EMPTY", NOWHERE, "the program is empty"))
    if not scope.diagnostics:
        scope.diagnostics.extend(uses.unused(_with_options(macros, scanned.options)))
    if scope.diagnostics:
        raise CompileError(scope.diagnostics, source)
    checked = CheckedProgram(
        clauses=tuple(clauses),
        variables=tuple(scope.variables.values()),
        aggregations=tuple(a.plan() for a in scope.aggregations.values()),
        options=scanned.options,
    )
    return split_clauses(checked)


def _with_options(macros: Macros, options: tuple[Option, ...]) -> Macros:
    if any(option.name == "defaultargs" for option in options):
        return Macros(args=macros.args, values=macros.values, default_args=True)
    return macros


def _items(script: ast.Script, scope: Scope, *, allow_bare: bool) -> list[CheckedClause]:
    clauses: list[CheckedClause] = []
    for item in script.items:
        if len(scope.diagnostics) >= MAX_DIAGNOSTICS:
            break
        match item:
            case ast.Clause():
                clauses.append(_clause(item, scope, allow_bare=allow_bare))
            case ast.Declaration():
                with _collecting(scope):
                    _declare(item, scope)
            case _:
                assert_never(item)
    return clauses


@contextmanager
def _collecting(scope: Scope) -> Iterator[None]:
    """Note a refusal and go on behind the ``with``."""
    try:
        yield
    except Refusal as refusal:
        scope.diagnostics.append(refusal.diagnostic)


# Declarations.


def _declare(item: ast.Declaration, scope: Scope) -> None:
    t = resolve(item.type)
    if item.keys is not None:
        raise not_yet(item.span, "associative arrays are", tag="D_VAR_UNSUP")
    if item.scope == "self":
        raise not_yet(item.span, "thread-local variables (self->) are", tag="D_VAR_UNSUP")
    match t:
        case StringType():
            raise not_yet(item.span, "string variables are", tag="D_VAR_UNSUP")
        case IntType():
            where: typed.VarScope = "local" if item.scope == "this" else "global"
        case _:
            raise refuse("D_DECL_VOIDOBJ", item.span, f"{item.name} cannot be void")
    if where == "global" and (item.name in VARIABLES or item.name in FUNCTIONS):
        raise refuse("D_DECL_IDRED", item.span, f"{item.name} is built in")
    known = scope.variable(where, item.name)
    if known is not None and not same(known.type, t):
        raise refuse("D_DECL_IDRED", item.span, f"{item.name} is {known.type} already and cannot be {t}")
    if known is None:
        scope.define(where, item.name, t)


# Clauses.


def _clause(clause: ast.Clause, scope: Scope, *, allow_bare: bool) -> CheckedClause:
    probes: list[ProbeDescription] = []
    for probe in clause.probes:
        with _collecting(scope):
            probes.append(_probe(probe))
    predicate: typed.TypedExpr | None = None
    statements: list[TypedStatement] = []
    with _collecting(scope):
        if clause.predicate is not None:
            predicate = check_scalar(clause.predicate, scope, "D_PRED_SCALAR", "a predicate")
    with _collecting(scope):
        _check_bare(clause, allow_bare=allow_bare)
    written = clause.body.statements if clause.body else ()
    for statement in written:
        with _collecting(scope):
            statements.extend(_statement(statement, scope))
    default = all(isinstance(statement, ast.Empty) for statement in written)
    return CheckedClause(tuple(probes), predicate, tuple(statements), default, clause.span)


def _probe(probe: ast.ProbeText) -> ProbeDescription:
    if probe.text.isdecimal() and len(probe.text) > _LONGEST_ID:
        raise refuse("D_PDESC_INVAL", probe.span, "probe ID is too large")
    try:
        return ProbeDescription.parse(probe.text)
    except DescriptionError as error:
        raise refuse("D_PDESC_INVAL", probe.span, str(error)) from error


def _check_bare(clause: ast.Clause, *, allow_bare: bool) -> None:
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
        case ast.Block():
            return [out for inner in statement.statements for out in _statement(inner, scope)]
        case ast.If():
            return [_if(statement, scope)]
        case ast.ExprStatement():
            return [_expression(statement.value, scope)]
        case _:
            assert_never(statement)


def _if(statement: ast.If, scope: Scope) -> TypedStatement:
    cond = check_scalar(statement.cond, scope, "D_OP_SCALAR", "the condition of if")
    then = _statement(statement.then, scope)
    orelse = _statement(statement.orelse, scope) if statement.orelse else []
    return typed.IfElse(cond, tuple(then), tuple(orelse))


def _expression(expr: ast.Expr, scope: Scope) -> TypedStatement:
    match expr:
        case ast.AggRef():
            raise refuse("D_AGG_NULL", expr.span, f"@{expr.name} alone does nothing")
        case ast.Assign(target=ast.AggRef()):
            return aggregate(expr, scope)
        case ast.Call() if (function := find_function(expr)) is not None and function.kind == "action":
            return action(expr, function, scope)
        case _:
            return typed.Do(check(expr, scope))
