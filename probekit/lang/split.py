"""Split clauses that record data inside an ``if``, as dtrace(1) does.

A clause writes at most one record, with all its fields. So an action that may or may not run needs a clause of its
own. The parts hand control on in a hidden clause-local variable, which holds the number of the part to run next:

    P /p/ { a; if (c) trace(1); else trace(2); b; }

    P /p/              { a; %next = c ? 2 : 3; }
    P /%next == 2/     { trace(1); %next = 1; }
    P /%next == 3/     { trace(2); %next = 1; }
    P /%next == 1/     { b; }

Clause-local variables are zero when a probe fires, and a part names its successor last. So after a false predicate
or a fault the later parts do not run. An ``if`` without such an action stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from probekit.lang import typed
from probekit.lang.typed import CheckedClause, CheckedProgram, TypedExpr, TypedStatement
from probekit.lang.types import INT
from probekit.records import fresh, mutable_record, replaced

__all__ = ("split_clauses",)

_NOWHERE = 0


def split_clauses(program: CheckedProgram) -> CheckedProgram:
    """Return the program with clauses that each record either all of their fields or none."""
    if not any(_records_inside(s) for clause in program.clauses for s in clause.statements):
        return program
    splitter = _Splitter(typed.Var(len(program.variables), "%next", "local", INT))
    clauses = [part for clause in program.clauses for part in splitter.split(clause)]
    return replaced(program, clauses=tuple(clauses), variables=(*program.variables, splitter.next))


def _records_inside(statement: TypedStatement) -> bool:
    """Tell whether an ``if`` has a data-recording action anywhere inside."""
    return isinstance(statement, typed.IfElse) and any(
        isinstance(s, typed.ActionCall) or _records_inside(s) for s in (*statement.then, *statement.orelse)
    )


@mutable_record
class _Splitter:
    """Splits the clauses of one program."""

    next: typed.Var
    """The hidden variable."""
    numbers: int = _NOWHERE
    """The last number given to a part."""
    parts: list[CheckedClause] = fresh(list)
    """The parts of the clause that is being split."""

    def split(self, clause: CheckedClause) -> list[CheckedClause]:
        """Return the parts of a clause: the clause itself if nothing must be split."""
        if not any(_records_inside(s) for s in clause.statements):
            return [clause]
        self.parts = []
        self._walk(clause, clause.predicate, clause.statements, _NOWHERE)
        return self.parts

    def _walk(
        self, clause: CheckedClause, gate: TypedExpr | None, statements: Sequence[TypedStatement], successor: int
    ) -> None:
        """Make the parts of a list of statements, after which the part ``successor`` runs."""
        part: list[TypedStatement] = []
        for index, statement in enumerate(statements):
            if not isinstance(statement, typed.IfElse) or not _records_inside(statement):
                part.append(statement)
                continue
            last = index == len(statements) - 1
            after = successor if last else self._next_number()
            then = self._next_number()
            orelse = self._next_number() if statement.orelse else after
            self._part(clause, gate, [*part, self._set_next(statement.cond, then, orelse)])
            self._walk(clause, self._is_next(then), statement.then, after)
            if statement.orelse:
                self._walk(clause, self._is_next(orelse), statement.orelse, after)
            if last:
                return
            gate, part = self._is_next(after), []
        if successor != _NOWHERE:
            part.append(typed.Evaluate(typed.Store(self.next, typed.Const(successor, INT), INT)))
        if part:
            self._part(clause, gate, part)

    def _part(self, clause: CheckedClause, gate: TypedExpr | None, statements: list[TypedStatement]) -> None:
        self.parts.append(replaced(clause, predicate=gate, statements=tuple(statements)))

    def _next_number(self) -> int:
        self.numbers += 1
        return self.numbers

    def _is_next(self, number: int) -> TypedExpr:
        return typed.Compare("eq", typed.Load(self.next, INT), typed.Const(number, INT), signed=True)

    def _set_next(self, cond: TypedExpr, then: int, orelse: int) -> TypedStatement:
        target = typed.Choose(cond, typed.Const(then, INT), typed.Const(orelse, INT), INT)
        return typed.Evaluate(typed.Store(self.next, target, INT))
