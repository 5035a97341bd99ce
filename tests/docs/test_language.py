"""Every example of the language guide prints what stands below it; tests/live/test_guide.py has those for a guest."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from probekit.cli.main import main

GUIDE = Path(__file__).parents[2] / "docs" / "language.md"
FENCE = re.compile(r"^```(\w+)[ ]?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """``flags``: of the command line; ``errors``: what goes to standard error, None when it does not matter.

    ``guest``: it needs one.
    """

    line: int
    flags: tuple[str, ...]
    script: str
    output: str
    status: int
    errors: str | None
    guest: bool = False


def examples(text: str) -> list[Example]:
    found: list[Example] = []
    script, flags, line, guest = "", (), 0, False
    for fence in FENCE.finditer(text):
        kind, words, body = fence.groups()
        if kind in ("d", "guest"):
            guest = kind == "guest"
            script, flags, line = body, tuple(shlex.split(words)), text.count("\n", 0, fence.start()) + 1
        elif kind == "text":
            status = re.search(r"status=(\d+)", words)
            found.append(Example(line, flags, script, body, int(status[1]) if status else 0, None, guest))
        elif kind == "stderr":
            last = found.pop()
            found.append(Example(last.line, last.flags, last.script, last.output, last.status, body, last.guest))
    return found


EXAMPLES = examples(GUIDE.read_text())
ANYWHERE = [example for example in EXAMPLES if not example.guest]


def test_there_are_examples() -> None:
    assert len(ANYWHERE) > 20 and len(EXAMPLES) > len(ANYWHERE)


@pytest.mark.parametrize("example", ANYWHERE, ids=lambda e: f"line-{e.line}")
def test_prints_what_it_says(example: Example, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.d").write_text(example.script)
    status = main(["-r", "none", "-q", "-s", "x.d", *example.flags])
    seen = capfd.readouterr()
    assert (seen.out, status) == (example.output, example.status), seen.err
    if example.errors is not None:
        assert seen.err == example.errors
