"""The faults of a script as text."""

from __future__ import annotations

from probekit.lang.diagnostics import CompileError, Diagnostic, did_you_mean, refuse, render
from probekit.lang.source import NOWHERE, Source, Span

_SOURCE = Source("BEGIN\n/ pd == 7 / { }\n", "test.d")
_FAULT = Diagnostic("D_IDENT_UNDEF", Span(8, 10), "pd is not defined", ("did you mean pid?",))


def test_a_fault_shows_its_line_with_carets_under_the_place() -> None:
    assert render(_FAULT, _SOURCE) == (
        "test.d:2:3: pd is not defined [D_IDENT_UNDEF]\n  2 | / pd == 7 / { }\n    |   ^^\n  hint: did you mean pid?"
    )


def test_with_errtags_a_fault_is_one_line() -> None:
    assert render(_FAULT, _SOURCE, errtags=True) == "[D_IDENT_UNDEF] line 2: pd is not defined"


def test_control_characters_neither_move_the_carets_nor_reach_the_terminal() -> None:
    shown = render(Diagnostic("T", Span(2, 3), "m"), Source("\t\x1bx")).splitlines()
    assert shown[1:] == ["  1 |  ?x", "    |   ^"]


def test_of_a_very_long_line_only_the_part_around_the_place_is_shown() -> None:
    shown = render(Diagnostic("T", Span(5000, 5001), "m"), Source("a" * 5000 + "b" + "a" * 5000)).splitlines()
    assert len(shown[1]) < 200
    assert shown[1][shown[2].index("^")] == "b"


def test_a_fault_after_the_last_character_still_has_a_place() -> None:
    assert render(Diagnostic("T", Span(99, 99), "m"), Source("ab")).startswith("1:3: m")


def test_all_faults_of_a_script_are_one_error() -> None:
    error = CompileError([_FAULT, _FAULT], _SOURCE, part=2)
    assert error.part == 2
    assert error.text(errtags=True).count("\n") == 1
    assert str(error).count("pd is not defined") == 2


def test_empty_hints_are_left_out() -> None:
    assert refuse("T", NOWHERE, "m", "", "try").diagnostic.hints == ("try",)


def test_only_a_close_word_is_suggested() -> None:
    assert did_you_mean("execnam", ("pid", "execname")) == "did you mean execname?"
    assert did_you_mean("zzz", ("pid", "execname")) == ""
