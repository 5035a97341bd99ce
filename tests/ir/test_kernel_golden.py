"""Golden cases: scripts that name a kernel's types and symbols, lowered against a made-up kernel."""

from __future__ import annotations

import pytest

from probekit.ir.pprint import format_program
from probekit.ir.verify import verify_program
from tests.support.fake_kernel import compiled
from tests.support.golden import Case, check_case, load_cases


@pytest.mark.parametrize("case", load_cases("kernel"), ids=str)
def test_lowering(case: Case, request: pytest.FixtureRequest) -> None:
    program = compiled(case.text)
    assert verify_program(program) == []
    check_case(case, format_program(program), request)
