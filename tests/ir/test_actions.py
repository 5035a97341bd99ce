"""A checked action in the consumer's form."""

from __future__ import annotations

import pytest

from probekit.buffers import actions as out
from probekit.buffers.actions import Action
from probekit.buffers.formats import parse_format
from probekit.errors import InternalError
from probekit.ir.actions import make_action
from probekit.lang.typed import ActionCall

_FORM = parse_format("%d")


@pytest.mark.parametrize(
    ("act", "fields", "expected"),
    [
        (ActionCall("printf", (), format=_FORM), (3, 4), out.Printf(_FORM, (3, 4))),
        (ActionCall("printa", (), format=None, aggs=(1, 2)), (), out.Printa(None, (1, 2))),
        (ActionCall("trunc", (), aggs=(1,)), (), out.Trunc(1)),
        (ActionCall("trunc", (), aggs=(1,)), (5,), out.Trunc(1, 5)),
        (ActionCall("normalize", (), aggs=(1,)), (5,), out.Normalize(1, 5)),
        (ActionCall("setopt", ()), (1,), out.Setopt(1)),
        (ActionCall("setopt", ()), (1, 2), out.Setopt(1, 2)),
        (ActionCall("tracemem", ()), (1, 2), out.Tracemem(1, 2)),
        (ActionCall("stack", ()), (1,), out.Stack(1)),
        (ActionCall("ustack", ()), (1,), out.Stack(1, user=True)),
        (ActionCall("umod", ()), (1,), out.SymbolAction("umod", 1)),
    ],
    ids=lambda case: getattr(case, "action", None),
)
def test_an_action_names_its_fields_and_aggregations(
    act: ActionCall, fields: tuple[int, ...], expected: Action
) -> None:
    assert make_action(act, fields) == expected


@pytest.mark.parametrize("name", ["printf", "system", "freopen", "print"])
def test_an_action_that_was_checked_without_its_format_is_our_own_bug(name: str) -> None:
    with pytest.raises(InternalError, match=r"the (format|shape) of \w+\(\) is missing"):
        make_action(ActionCall(name, ()), (0,))
