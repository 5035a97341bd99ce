"""What a failed live test shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reporting import console_end

pytest_plugins = ("pytester",)

_GUEST = """
import pytest
from pathlib import Path
pytest_plugins = ("tests.reporting",)

class Guest:
    name = "mine"
    console = Path("console.log")

@pytest.fixture
def guest():
    return Guest()

@pytest.mark.guest
def test_fails(guest):
    assert False
"""


def test_the_end_of_a_console_is_shown_without_its_controls(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_bytes(b"first\r\n" + b"x" * 10_000 + b"\n\x1b[31moops\n")
    shown = console_end(console)
    assert "first" not in shown
    assert shown.endswith("\\x1b[31moops\n")


def test_a_console_that_is_gone_is_said(tmp_path: Path) -> None:
    assert "cannot be read" in console_end(tmp_path / "none")


def test_a_failed_live_test_prints_the_console_and_how_to_run_it_alone(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers = guest: x\n")
    pytester.makepyfile(test_it=_GUEST)
    pytester.path.joinpath("console.log").write_text("BUG: something\n")
    result = pytester.runpytest_inprocess("-p", "no:xdist")
    result.stdout.fnmatch_lines(
        ["*console of mine*", "BUG: something", "*to run it alone*", "make test PYTEST=*test_it.py::test_fails*"]
    )
