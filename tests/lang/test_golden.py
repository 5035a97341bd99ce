"""Golden cases: scripts to syntax trees, scripts to typed trees, faults as text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from probekit.lang.check import check_program
from probekit.lang.diagnostics import CompileError
from probekit.lang.parse.macros import Macros, MacroUses
from probekit.lang.parse.parser import parse
from probekit.lang.scan import scan
from probekit.lang.source import Source
from tests.support.golden import Case, check_case, load_cases
from tests.support.trees import format_tree


def _parsed(text: str) -> str:
    return format_tree(parse(scan(Source(text)).text, Macros(), MacroUses()))


def _checked(text: str) -> str:
    return format_tree(check_program(Source(text)))


def _faults(text: str) -> str:
    with pytest.raises(CompileError) as caught:
        check_program(Source(text, "t.d"))
    return f"{caught.value.text()}\n\n{caught.value.text(errtags=True)}\n"


_STAGES: dict[str, Callable[[str], str]] = {"parse": _parsed, "check": _checked, "faults": _faults}


@pytest.mark.parametrize("case", load_cases("lang"), ids=str)
def test_a_stage_prints_what_its_case_says(case: Case, request: pytest.FixtureRequest) -> None:
    check_case(case, _STAGES[case.path.stem](case.text), request)
