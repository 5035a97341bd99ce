"""What the code generator lacks has a name, and a clause that asks for it is refused by that name."""

from __future__ import annotations

import pytest

from probekit.codegen.calls import GUEST_SUBROUTINES
from probekit.codegen.demand import SERVICES
from probekit.codegen.supported import GUEST_BUILTINS, unsupported_features
from probekit.ir.build import compile_program
from probekit.ir.names import BUILTINS, CALLS


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("trace(ipl);", "the built-in variable ipl"),
        ("trace(ucaller);", "the built-in variable ucaller"),
        ("ustack();", "the subroutine ustack()"),
    ],
)
def test_what_the_code_generator_lacks_is_named(body: str, what: str) -> None:
    program = compile_program(f"fbt::f:entry {{ {body} }}")
    assert unsupported_features(program.clauses[0]) == [what]


@pytest.mark.parametrize(
    "body",
    [
        "x = arg0 * 2; this->y = x; @[execname] = max(this->y);",
        'self->x = strjoin(execname, "x"); a[1, "b"] = strlen(self->x); trace(*(int *)arg0);',
        "@[stack()] = llquantize(arg0, 10, 0, 6, 20, 3); trace(uid); tracemem(arg0, 16);",
    ],
)
def test_what_the_code_generator_has_is_not_refused(body: str) -> None:
    assert unsupported_features(compile_program(f"fbt::f:entry {{ {body} }}").clauses[0]) == []


def test_the_tables_name_what_the_language_has() -> None:
    assert SERVICES <= GUEST_SUBROUTINES <= CALLS.keys()
    assert BUILTINS.keys() >= GUEST_BUILTINS
