"""The code of one enabling: its routines and thunks, and its bound."""

from __future__ import annotations

import pytest

from probekit.codegen.image import routine_table
from probekit.codegen.runtime.registry import agg_find_name
from probekit.errors import UnsupportedError
from tests.codegen.built_program import Function
from tests.codegen.machine import Machine


def test_a_program_that_makes_too_much_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probekit.codegen.image.MAX_IMAGE", 2000)
    Machine("fbt::: { trace(arg0); }")
    with pytest.raises(UnsupportedError) as caught:
        Machine("fbt::: { " + "trace(arg0 * 3); " * 200 + "}")
    assert caught.value.feature == "size" and "more than the 2,000" in str(caught.value)


def test_sites_with_the_same_clauses_share_one_thunk() -> None:
    text = "fbt::f0: { trace(1); } fbt::f1: { trace(2); }"
    one = Machine(text, (Function(clauses=(0,)), Function(clauses=(0,)), Function(clauses=(1,))))
    assert sorted(members for _, members in one.image.thunks) == [(0,), (1,)]
    assert len(set(one.image.thunks.values())) == 2


def test_only_routines_that_are_called_are_in_the_image() -> None:
    assert Machine("fbt::: { x = arg0; }").image.layout.routines.keys() == set()
    placed = Machine('fbt::: { s = strjoin(execname, "x"); }').image.layout.routines
    assert "strjoin" in placed and "json" not in placed


def test_every_routine_has_one_name_in_one_table() -> None:
    table = routine_table(Machine("fbt::: { @[arg0] = count(); }").context)
    assert {"reserve", "strjoin", "json", agg_find_name(0)} <= table.keys()
