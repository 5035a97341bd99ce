"""Golden cases: scripts to IR, printed; every one of them verified."""

from __future__ import annotations

import pytest

from probekit.ir.build import compile_program
from probekit.ir.pprint import format_program
from probekit.ir.verify import verify_program
from tests.support.golden import Case, check_case, load_cases


@pytest.mark.parametrize("case", load_cases("ir"), ids=str)
def test_lowering(case: Case, request: pytest.FixtureRequest) -> None:
    program = compile_program(case.text, allow_bare=True)
    assert verify_program(program) == []
    check_case(case, format_program(program), request)
