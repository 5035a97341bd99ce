"""Operands: constants, names and values in memory are told apart."""

from __future__ import annotations

from tests.codegen.compared import compare


def test_short_constants_beside_a_task_s_name() -> None:
    """As long as a name in memory: what lies behind a short constant is not recorded with it."""
    text = """fbt::: { trace("b"); trace("c"); trace(arg0 ? "a" : execname); }
        fbt::: { @[arg0 ? "a" : execname] = count(); trace(arg0 ? execname : "fifteen letters"); }"""
    compare(text, (0,), (1,), (0,))
