"""Every script that ships compiles, and says what it does, what it needs and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.ir.build import compile_program
from probekit.ir.verify import verify_program

SCRIPTS = sorted((Path(__file__).parents[2] / "scripts").glob("*.d"))
# What a kernel's own types are needed for is compiled where there is a kernel: tests/live/test_scripts.py.
UNTYPED = [path for path in SCRIPTS if "args[" not in path.read_text()]
ARGUMENTS = ("flow.d", "openat", "cat")  # $0, $1, $2


def test_there_are_scripts() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", UNTYPED, ids=lambda path: path.name)
def test_compiles(script: Path) -> None:
    text = script.read_text()
    program = compile_program(text, filename=str(script), args=ARGUMENTS if "$1" in text else ())
    assert program.clauses
    assert not verify_program(program)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_explains_itself(script: Path) -> None:
    head = script.read_text().partition("*/")[0]
    assert f"{script.name} - " in head
    assert "Sample output" in head
