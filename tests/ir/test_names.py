"""What the IR knows by name."""

from __future__ import annotations

import pytest

from probekit.ir.names import BUILTINS, CALLS, BuiltinInfo, CallInfo


@pytest.mark.parametrize("info", BUILTINS.values(), ids=list(BUILTINS))
def test_a_built_in_variable_has_the_size_of_its_kind(info: BuiltinInfo) -> None:
    assert info.size == 8 or info.kind == "string"
    assert info.bits in (32, 64)
    assert not info.by_routine or info.kind == "string"


def test_the_parts_of_the_probe_s_name_are_constants_of_a_site() -> None:
    constant = {name for name, info in BUILTINS.items() if info.per_probe}
    assert constant == {"id", "probeprov", "probemod", "probefunc", "probename"}


@pytest.mark.parametrize("info", CALLS.values(), ids=list(CALLS))
def test_only_arguments_that_exist_may_be_missing(info: CallInfo) -> None:
    assert 0 <= info.optional <= len(info.args)
