"""Kernel symbols: their values where a type is known, their addresses always."""

from __future__ import annotations

import pytest

from probekit.ir.build import compile_program
from probekit.ir.pprint import format_program
from probekit.ir.verify import verify_program
from probekit.lang.diagnostics import CompileError
from probekit.lang.symbols import PERCPU_OFFSET
from tests.support.fake_kernel import FakeKernel, compiled


def refusal(text: str, kernel: FakeKernel | None = None) -> tuple[str, str]:
    """Tag and whole text of the first fault."""
    with pytest.raises(CompileError) as caught:
        compiled(text, kernel)
    return caught.value.diagnostics[0].tag, caught.value.text()


def test_an_untyped_symbol_says_how_to_read_it() -> None:
    assert "*(long *)&`ticks" in refusal("BEGIN { trace(`ticks); }")[1]


def test_a_symbol_that_does_not_exist_is_told_from_a_missing_guest() -> None:
    tag, text = refusal("BEGIN { trace(`nosuch); }")
    assert tag == "D_IDENT_UNDEF" and "the kernel has no symbol `nosuch" in text
    with pytest.raises(CompileError, match="there is no guest"):
        compile_program("BEGIN { trace(`first); }")


def test_the_address_of_a_symbol_needs_no_type() -> None:
    for script in ("BEGIN { trace(*(long *)&`ticks); }", "BEGIN { trace((long)&`ticks); }"):
        assert verify_program(compiled(script)) == []
        assert verify_program(compiled(script, FakeKernel(data=None))) == []


def test_a_per_cpu_variable_is_read_at_this_cpus_own_offset() -> None:
    shown = format_program(compiled("BEGIN { trace((long)&`running); } BEGIN { trace((long)&`first); }"))
    first, second = shown.split("clause")[-2:]
    assert PERCPU_OFFSET in first and PERCPU_OFFSET not in second


def test_the_name_of_a_function_is_its_address() -> None:
    assert refusal("BEGIN { `do_it = 1; }")[0].startswith("D_")
    same = [format_program(compiled(f"BEGIN {{ trace((long){text}`do_it); }}")) for text in ("", "&")]
    assert same[0] == same[1]
