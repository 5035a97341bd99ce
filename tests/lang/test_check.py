"""Checking a whole program: its faults are bounded, and each is told once."""

from __future__ import annotations

import pytest

from probekit.ir.build import compile_program
from probekit.lang.diagnostics import CompileError
from probekit.lang.parse.parser import MAX_DEPTH

_DEEPEST = MAX_DEPTH - 6


def test_many_faults_are_bounded() -> None:
    with pytest.raises(CompileError) as caught:
        compile_program("BEGIN { trace(nosuch); }\n" * 1000)
    assert len(caught.value.diagnostics) <= 25


def test_the_clauses_that_are_right_hide_no_fault_of_another() -> None:
    with pytest.raises(CompileError) as caught:
        compile_program("BEGIN { trace(1); } BEGIN { trace(nosuch); } END { trace(1 / 0); } BEGIN { trace(2); }")
    assert [d.tag for d in caught.value.diagnostics] == ["D_IDENT_UNDEF", "D_DIV_ZERO"]


def test_a_program_without_a_clause_is_refused_unless_it_is_permitted() -> None:
    for text in ("", "int x;", "/* nothing */"):
        with pytest.raises(CompileError) as caught:
            compile_program(text)
        assert [d.tag for d in caught.value.diagnostics] == ["D_EMPTY"]
    assert compile_program("#pragma D option empty\nint x;\n").clauses == ()


def test_a_bare_clause_runs_only_where_that_is_allowed() -> None:
    assert len(compile_program("fbt::: { trace(1); }", allow_bare=True).clauses) == 1
