"""The record of a clause: where its fields are, and whether it is a line of output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.actions import (
    Action,
    Chill,
    Commit,
    Default,
    Discard,
    Exit,
    FieldKind,
    Panic,
    Raise,
    RecordField,
    RecordPlan,
    Stop,
    TraceAction,
    field_layout,
)

_ITEM = st.one_of(
    st.tuples(st.sampled_from((1, 2, 4, 8)), st.just("int"), st.just("")),
    st.tuples(st.integers(1, 40), st.sampled_from(("string", "bytes", "stack")), st.just("")),
    st.tuples(st.just(0), st.just("probe"), st.just("probefunc")),
)


def test_integers_are_aligned_to_their_size_and_the_rest_to_words() -> None:
    items: list[tuple[int, FieldKind, str]] = [(4, "int", ""), (16, "string", ""), (1, "int", ""), (2, "uint", "")]
    fields, size = field_layout(items)
    assert [field.offset for field in fields] == [0, 8, 24, 26]
    assert size == 32


def test_a_part_of_the_probe_s_name_takes_no_room() -> None:
    fields, size = field_layout([(0, "probe", "probefunc"), (4, "int", "")])
    assert fields == (RecordField(0, 0, "probe", "probefunc"), RecordField(0, 4, "int"))
    assert size == 8


@given(items=st.lists(_ITEM, max_size=10))
def test_fields_never_overlap(items: list[tuple[int, FieldKind, str]]) -> None:
    fields, size = field_layout(items)
    end = 0
    for field in fields:
        assert field.offset >= end
        end = field.offset + field.size
    assert end <= size
    assert size % 8 == 0


@pytest.mark.parametrize("action", [Commit(0), Discard(0), Raise(0), Stop(), Panic(), Chill(0)])
def test_an_action_that_records_nothing_is_no_line_of_output(action: Action) -> None:
    assert not RecordPlan((), (action,), 0).shown


@pytest.mark.parametrize("action", [TraceAction(0), Exit(0), Default()])
def test_an_action_that_records_makes_the_whole_clause_a_line_of_output(action: Action) -> None:
    assert RecordPlan((), (Stop(), action), 0).shown
