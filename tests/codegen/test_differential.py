"""Random scripts: the code in the guest and the host's evaluator leave the same records, tables, globals and faults.

The normal run does some hundreds; ``PROBEKIT_FUZZ=5000 pytest --timeout 0 tests/codegen`` does thousands.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from probekit.errors import UnsupportedError
from probekit.lang.diagnostics import CompileError
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.compared import Compared
from tests.codegen.scripts import DECLARATIONS, expressions, ints, scripts, texts

EXAMPLES = int(os.environ.get("PROBEKIT_FUZZ", "120"))

_many = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
_firings = st.lists(st.tuples(*[ints] * 6), min_size=1, max_size=5)
_commands = st.binary(max_size=15).map(lambda raw: raw.split(b"\0")[0])

FUNCTIONS = (Function(), Function(code=NOP5 + RET, kind="return"), Function())


def _both(text: str, **options: object) -> Compared:
    try:
        return Compared(text, **options)
    except CompileError as error:
        assert {d.tag for d in error.diagnostics} <= {"D_DIV_ZERO", "D_INT_OFLOW"}, str(error)
    except UnsupportedError as error:
        assert error.feature == "stack"
    assume(False)
    raise AssertionError


@_many
@given(st.lists(expressions, min_size=1, max_size=4), texts, _firings)
def test_any_expression_has_the_hosts_value(exprs: list[str], text: str, firings: list[tuple[int, ...]]) -> None:
    body = " ".join(f"trace({e});" for e in (*exprs, text))
    both = _both(f"{DECLARATIONS} fbt::: {{ {body} }}")
    for args in firings:
        both.fire(*args)
    both.check()


@_many
@given(
    scripts(),
    st.lists(st.tuples(st.integers(0, 2), ints, st.tuples(*[ints] * 6)), min_size=1, max_size=6),
    _commands,
    ints,
    st.sampled_from((0x2E0C0, -0x3000, 0x6070_1122_3340, -(1 << 40))),
    st.booleans(),
)
def test_any_script_leaves_what_the_host_leaves(
    text: str,
    firings: list[tuple[int, int, tuple[int, ...]]],
    comm: bytes,
    pid: int,
    slot: int,
    preemptible: bool,
) -> None:
    pid = (pid & 0xFFFFFFFF) - (1 << 32 if pid & 1 << 31 else 0)
    both = _both(
        text,
        functions=FUNCTIONS,
        comm=comm,
        pid=pid,
        slot=slot,
        preemptible=preemptible,
        aggsize=1 << 17,
        bufsize=1 << 15,
        dynvarsize=1 << 16,
    )
    for function, returned, args in firings:
        both.fire(*args, function=function, returned=returned)
    both.check()
