"""Golden cases: scripts to IR, printed; every one of them verified."""

from __future__ import annotations

import pytest

from probekit.ir.build import compile_program
from probekit.ir.pprint import format_program
from probekit.ir.verify import verify_program
from tests.support.fake_kernel import compiled
from tests.support.golden import Case, check_case, load_cases


@pytest.mark.parametrize("case", load_cases("ir"), ids=str)
def test_a_script_is_lowered_to_the_operations_of_its_case(case: Case, request: pytest.FixtureRequest) -> None:
    program = compile_program(case.text, allow_bare=True)
    assert verify_program(program) == []
    check_case(case, format_program(program), request)


@pytest.mark.parametrize("case", load_cases("kernel"), ids=str)
def test_a_kernels_types_and_symbols_are_lowered_as_in_its_case(case: Case, request: pytest.FixtureRequest) -> None:
    program = compiled(case.text)
    assert verify_program(program) == []
    check_case(case, format_program(program), request)
