"""Clauses that record inside an ``if`` are split: each part records all of its fields or none."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.ir.build import compile_program
from probekit.lang import typed
from probekit.lang.check import check_program
from probekit.lang.source import Source
from probekit.lang.split import split_clauses
from probekit.lang.typed import CheckedProgram, TypedStatement
from tests.interp.worlds import World


def _split(text: str) -> CheckedProgram:
    return split_clauses(check_program(Source(text)))


def _acts(statements: Iterable[TypedStatement], *, inside: bool = False) -> list[bool]:
    """For each action, whether it is inside an ``if``."""
    found: list[bool] = []
    for statement in statements:
        if isinstance(statement, typed.ActionCall):
            found.append(inside)
        elif isinstance(statement, typed.IfElse):
            found += _acts((*statement.then, *statement.orelse), inside=True)
    return found


_statements = st.recursive(
    st.sampled_from(("trace({n});", "x = {n};", "x++;")),
    lambda inner: st.one_of(
        st.builds("if (arg{0}) {{{{ {1} }}}}".format, st.integers(0, 3), inner),
        st.builds("if (arg{0}) {{{{ {1} }}}} else {{{{ {2} }}}}".format, st.integers(0, 3), inner, inner),
        st.builds("{} {}".format, inner, inner),
    ),
    max_leaves=8,
)


def _numbered(body: str) -> str:
    parts = body.split("{n}")
    return "".join(f"{part}{number}" for number, part in enumerate(parts[:-1])) + parts[-1]


@given(_statements)
def test_no_action_is_inside_an_if_and_none_is_lost(body: str) -> None:
    text = _numbered(body).replace("{{", "{").replace("}}", "}")
    program = f"int x; BEGIN {{ {text} }}"
    before = [act for clause in check_program(Source(program)).clauses for act in _acts(clause.statements)]
    after = [act for clause in _split(program).clauses for act in _acts(clause.statements)]
    assert after == [False] * len(before)


def _python(body: str, args: tuple[int, ...]) -> list[int]:
    """What the actions of a body record when it is run as a Python program."""
    lines, depth, seen = ["x = 0"], 0, list[int]()
    for word in (
        body.replace("{", " { ")
        .replace("}", " } ")
        .replace(";", ";\n")
        .replace("{", "{\n")
        .replace("}", "\n}\n")
        .splitlines()
    ):
        word = word.strip()
        if not word:
            continue
        if word == "}":
            depth -= 1
            continue
        head = word.removesuffix("{").strip()
        if word.endswith("{"):
            lines.append("    " * depth + (f"if args[{head[7]}]:" if head.startswith("if") else "else:"))
            depth += 1
        elif word.startswith("trace"):
            lines.append("    " * depth + f"seen.append({word[6:-2]})")
        else:
            lines.append("    " * depth + "pass")
    exec("\n".join(lines), {"args": args, "seen": seen})
    return seen


@given(_statements, st.tuples(*[st.integers(0, 1)] * 4))
def test_the_parts_record_what_the_whole_would_record_in_its_order(body: str, args: tuple[int, ...]) -> None:
    text = _numbered(body).replace("{{", "{").replace("}}", "}")
    program = compile_program(f"int x; BEGIN {{ {text} }}")
    world = World(program, args=(*args, *[0] * 6))
    recorded = [
        int.from_bytes(outcome.record[field.offset : field.offset + field.size], "little")
        for clause, outcome in zip(program.clauses, world.run(), strict=True)
        if outcome.record is not None and clause.record is not None
        for field in clause.record.fields
    ]
    assert recorded == _python(text, args)


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN { trace(1); if (arg0) { x = 1; } }",
        "BEGIN { if (arg0) { @ = count(); } else { x = 2; } }",
        "BEGIN { x = 1; }",
    ],
)
def test_a_clause_that_needs_no_split_stays_as_it_is(text: str) -> None:
    checked = check_program(Source(text))
    assert split_clauses(checked) is checked
