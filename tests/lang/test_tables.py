"""The tables: no name twice, every type as the IR has it, every action with its checker."""

from __future__ import annotations

import pytest

from probekit.buffers.aggs import AGG_FUNCS
from probekit.ir.ops import BUILTINS
from probekit.lang.builtins import FUNCTIONS, VARIABLES, BuiltinVariable, register
from probekit.lang.calls import _ACTIONS
from probekit.lang.types import IntType, StringType
from probekit.lang.words import KEYWORDS, NOT_YET


def test_registering_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="twice"):
        register((BuiltinVariable("a"), BuiltinVariable("a")))


def test_variables_agree_with_the_ir() -> None:
    ready = {name: v.type for name, v in VARIABLES.items() if v.type is not None and not name.startswith("arg")}
    assert ready.keys() == BUILTINS.keys()
    for name, t in ready.items():
        info = BUILTINS[name]
        match t:
            case IntType():
                assert (info.kind, info.bits, info.signed) == ("int", t.bits, t.signed), name
            case StringType():
                assert (info.kind, info.size) == ("string", t.size), name


def test_every_ready_function_has_its_checker() -> None:
    assert {n for n, f in FUNCTIONS.items() if f.ready and f.kind == "action"} == _ACTIONS.keys()
    assert {n for n, f in FUNCTIONS.items() if f.ready and f.kind == "aggregating"} == AGG_FUNCS.keys()
    for name, func in AGG_FUNCS.items():
        assert (FUNCTIONS[name].least > 0) == func.takes_value


def test_names_do_not_overlap() -> None:
    assert not VARIABLES.keys() & FUNCTIONS.keys()
    assert not (VARIABLES.keys() | FUNCTIONS.keys()) & (KEYWORDS.keys() | NOT_YET.keys())
