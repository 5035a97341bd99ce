"""The tables: no name twice, every type as the IR has it, every action with its checker."""

from __future__ import annotations

import pytest

from probekit.buffers.aggs import AGG_FUNCS
from probekit.interp.calls import _CALLS
from probekit.ir.actions import _MAKERS
from probekit.ir.names import BUILTINS, CALLS
from probekit.lang.builtins import FUNCTIONS, VARIABLES, BuiltinVariable, register
from probekit.lang.keywords import KEYWORDS, MEANINGLESS
from probekit.lang.symbols import PERCPU_OFFSET
from probekit.lang.types import IntType, StringType


def test_a_name_that_is_registered_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="twice"):
        register((BuiltinVariable("a"), BuiltinVariable("a")))


def test_built_in_variables_have_the_types_of_the_ir() -> None:
    ready = {name: v.type for name, v in VARIABLES.items() if v.type is not None and not name.startswith("arg")}
    assert ready.keys() == BUILTINS.keys() - {PERCPU_OFFSET}
    for name, t in ready.items():
        info = BUILTINS[name]
        match t:
            case IntType():
                assert (info.kind, info.bits, info.signed) == ("int", t.bits, t.signed), name
            case StringType():
                assert (info.kind, info.size) == ("string", t.size), name
            case _:
                assert info.kind == "int", name


def test_every_function_is_known_to_the_later_stages() -> None:
    actions = {n for n, f in FUNCTIONS.items() if f.kind == "action"}
    assert actions - _MAKERS.keys() == {"copyout", "copyoutstr", "pcap"}
    assert {n for n, f in FUNCTIONS.items() if f.kind == "aggregating"} == AGG_FUNCS.keys()
    for name, func in AGG_FUNCS.items():
        assert (len(FUNCTIONS[name].params) > 0) == func.takes_value
    subroutines = {n for n, f in FUNCTIONS.items() if f.kind == "subroutine" and f.known}
    assert subroutines <= CALLS.keys() == _CALLS.keys()


def test_names_do_not_overlap() -> None:
    assert not VARIABLES.keys() & FUNCTIONS.keys()
    assert not (VARIABLES.keys() | FUNCTIONS.keys()) & (KEYWORDS.keys() | MEANINGLESS.keys())
