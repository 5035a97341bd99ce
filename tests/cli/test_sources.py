"""Several scripts of one command line: compiled once, each with its own faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from probekit.cli import sources as module
from probekit.cli.errors import ScriptError
from probekit.cli.sources import Compiled, ProgramText, compile_sources
from probekit.lang import check
from probekit.probe.names import ProbeDescription
from probekit.session.options import Options


def _compile(
    *texts: str, can_match: Callable[[ProbeDescription], bool] | None = None, args: tuple[str, ...] = ()
) -> Compiled:
    sources = [ProgramText(text, f"description {n}", f"<{n}>") for n, text in enumerate(texts)]
    return compile_sources(sources, args, Options(), None, can_match=can_match)


def _refused(*texts: str, **more: Any) -> str:
    with pytest.raises(ScriptError) as caught:
        _compile(*texts, **more)
    return caught.value.message


def test_each_source_is_told_how_many_clauses_are_its_own() -> None:
    made = _compile(
        "BEGIN { x = 1; }",
        "int y; END { trace(x); } ERROR { trace(2); }",
        "tick-1s { if (x) { trace(1); } else { exit(0); } }",
    )
    assert made.counts[:2] == (1, 2)
    assert sum(made.counts) == len(made.program.clauses)


def test_a_hundred_sources_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    compile_program, parse = module.compile_program, check.parse
    monkeypatch.setattr(
        module, "compile_program", lambda *a, **k: (calls.append("compile"), compile_program(*a, **k))[1]
    )
    monkeypatch.setattr(check, "parse", lambda *a, **k: (calls.append("parse"), parse(*a, **k))[1])
    assert _compile(*["BEGIN { trace(1); }"] * 100).counts == (1,) * 100
    assert calls == ["compile", "parse"]


def test_the_first_faulty_source_is_named_with_its_own_line() -> None:
    said = _refused("BEGIN { trace(1); }", "END\n{ trace(nosuch); }", "END { trace(worse); }")
    assert said.startswith("invalid probe specifier <1>: 2:9: nosuch is not defined [D_IDENT_UNDEF]")
    assert "worse" not in said and "<2>" not in said


@pytest.mark.parametrize(
    ("texts", "number", "tag"),
    [
        (("BEGIN { trace(nosuch); }", "END { ("), 0, "D_IDENT_UNDEF"),
        (("BEGIN { trace(1); ", "END { }"), 0, "D_SYNTAX"),
        (("BEGIN { trace(1); /* ", " */ }"), 0, "D_SYNTAX"),
        (("BEGIN { }", "END { ) }", "END { }"), 1, "D_SYNTAX"),
        (("int x;", "BEGIN { }"), 0, "D_EMPTY"),
        (("BEGIN { trace(x); }", "int x; END { }"), 0, "D_IDENT_UNDEF"),
        (("BEGIN { trace($1); }", "END { }"), 0, "D_MACRO_UNDEF"),
    ],
)  # fmt: skip
def test_a_fault_belongs_to_the_source_that_has_it(texts: tuple[str, ...], number: int, tag: str) -> None:
    said = _refused(*texts)
    assert said.startswith(f"invalid probe specifier <{number}>: ") and f"[{tag}]" in said


def test_an_argument_may_be_used_by_any_source() -> None:
    assert _compile("BEGIN { trace(1); }", "END { trace($1); }", args=("7",)).counts == (1, 1)
    assert "[D_MACRO_UNUSED]" in _refused("BEGIN { }", "END { }", args=("7",))


def test_zdefs_holds_for_its_own_source_and_later_ones() -> None:
    zdefs = "#pragma D option zdefs\n"
    known = ProbeDescription.parse("BEGIN")
    match = lambda description: description == known  # noqa: E731
    assert _compile("BEGIN { }", zdefs + "nosuch { }", "nosuch { }", can_match=match).counts == (1, 1, 1)
    assert "<0>" in _refused("nosuch { }", zdefs + "BEGIN { }", can_match=match)


def test_an_option_of_a_later_source_gives_no_arguments_to_an_earlier_one() -> None:
    defaultargs = "#pragma D option defaultargs\n"
    assert _compile(defaultargs + "BEGIN { trace($1); }", "END { trace($2); }").counts == (1, 1)
    said = _refused("BEGIN { trace($1); }", defaultargs + "END { trace($2); }", "END { trace(nosuch); }")
    assert said.startswith("invalid probe specifier <0>: 1:15: macro argument $1 is not defined [D_MACRO_UNDEF]")


def test_a_later_source_that_names_what_a_kernel_may_know_does_not_excuse_an_earlier_one() -> None:
    sources = [ProgramText("BEGIN { (", "a", "<0>"), ProgramText("END { trace(nosuch); }", "b", "<1>")]
    for reverse in (False, True):
        with pytest.raises(ScriptError) as caught:
            compile_sources(sources[::-1] if reverse else sources, (), Options(), None)
        assert caught.value.needs_kernel is reverse


def test_clauses_of_a_library_are_counted_with_the_first_source() -> None:
    sources = [
        ProgramText("END { x = 1; } tick-1s { }", "library 'l.d'", "l.d", "l.d", library=True),
        ProgramText("BEGIN { trace(1); }", "description 0", "<0>"),
        ProgramText("BEGIN { trace(2); } ERROR { }", "description 1", "<1>"),
    ]
    assert compile_sources(sources, (), Options(), None).counts == (0, 3, 2)


def test_a_fault_among_a_hundred_sources_takes_two_compilations(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    compile_program = module.compile_program
    monkeypatch.setattr(module, "compile_program", lambda *a, **k: (calls.append("all"), compile_program(*a, **k))[1])
    said = _refused(*["BEGIN { trace(1); }"] * 50, "BEGIN { trace(nosuch); }", *["BEGIN { trace(1); }"] * 49)
    assert said.startswith("invalid probe specifier <50>: ")
    assert len(calls) == 2


def test_a_clause_has_the_line_of_its_own_source() -> None:
    made = _compile("BEGIN { trace(1); }\nEND { }", "BEGIN { }\n\nEND { }", '# 40 "x.d"\nBEGIN { }')
    assert [clause.line for clause in made.program.clauses] == [1, 2, 1, 3, 40]
