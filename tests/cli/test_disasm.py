"""The compiled program, as ``-S`` shows it."""

from __future__ import annotations

from typing import Any

from probekit.cli.disasm import show_code, show_program
from probekit.ir.build import compile_program


def test_the_intermediate_code_goes_to_standard_error(capsys: Any) -> None:
    show_program(compile_program("BEGIN { trace(pid); }"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "builtin pid" in captured.err


def test_machine_code_is_a_line_for_each_instruction(capsys: Any) -> None:
    show_code((0x1000, b"\x90\xc3"))
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == ["nop", "ret"]


def test_very_long_code_is_cut_and_says_so(capsys: Any) -> None:
    show_code((0x1000, b"\x90" * ((1 << 16) + 5)))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (1 << 16) + 1
    assert lines[-1] == "... 5 more bytes"


def test_a_program_without_code_in_the_guest_shows_none(capsys: Any) -> None:
    show_code(None)
    assert capsys.readouterr().err == ""
