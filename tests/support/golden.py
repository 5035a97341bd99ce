"""Golden cases in mypyc's form: a name, an input, the expected text.

    [case count]
    BEGIN { @ = count(); }
    [out]
    ...

``pytest --update-golden`` writes what came out into the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data"

_CASE = re.compile(r"^\[case ([\w.-]+)\]\n", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """One case. ``path``: its file; ``text``: the input; ``expected``: what must come out."""

    path: Path
    name: str
    text: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path.stem}-{self.name}"


def load_cases(folder: str) -> list[Case]:
    """All cases of tests/data/<folder>/*.test."""
    cases = [case for path in sorted((DATA / folder).glob("*.test")) for case in _read(path)]
    assert cases, f"no golden cases in {folder}"
    return cases


def _read(path: Path) -> list[Case]:
    pieces = _CASE.split(path.read_text("utf-8"))
    cases = []
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        text, mark, expected = body.partition("[out]\n")
        assert mark, f"{path}: case {name} has no [out]"
        cases.append(Case(path, name, text, expected.rstrip("\n") + "\n"))
    names = [case.name for case in cases]
    assert len(names) == len(set(names)), f"{path}: a case name twice"
    return cases


def check_case(case: Case, actual: str, request: pytest.FixtureRequest) -> None:
    """Compare, or with ``--update-golden`` rewrite the case."""
    actual = actual.rstrip("\n") + "\n"
    if request.config.getoption("--update-golden", default=False) and actual != case.expected:
        _rewrite(case, actual)
        return
    assert actual == case.expected


def _rewrite(case: Case, actual: str) -> None:
    out = []
    for known in _read(case.path):
        expected = actual if known.name == case.name else known.expected
        out.append(f"[case {known.name}]\n{known.text}[out]\n{expected}")
    head = _CASE.split(case.path.read_text("utf-8"))[0]
    case.path.write_text(head + "\n".join(out), "utf-8")
