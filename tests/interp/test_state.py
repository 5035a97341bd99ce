"""What a program keeps between firings on the host."""

from __future__ import annotations

import pytest

from probekit.interp.memory import BadAddress
from probekit.interp.state import ProgramState, StateLimits
from probekit.ir.ops import Program, Variable

_VARIABLES = (
    Variable(0, "s", "global", "string", size=16),
    Variable(1, "t", "self", "int"),
    Variable(2, "a", "global", "int", keys=("int", "string")),
    Variable(3, "b", "self", "int", keys=("int",)),
    Variable(4, "o", "global", "object", size=24),
    Variable(5, "l", "local", "object", size=24),
    Variable(6, "e", "global", "object", size=24, keys=("int",)),
)
STRING, THREAD, ARRAY, OWN_ARRAY, OBJECT, LOCAL, OBJECTS = range(7)


def _state(dynvarsize: int = 1 << 20) -> ProgramState:
    return ProgramState(Program((), _VARIABLES, ()), StateLimits(dynvarsize=dynvarsize))


def test_what_was_never_assigned_is_zero_or_empty() -> None:
    state = _state()
    assert (state.load(STRING), state.load(THREAD), state.load_element(ARRAY, (1, b"x"))) == (b"", 0, 0)


def test_each_thread_has_its_own_variables_and_elements() -> None:
    state = _state()
    for thread in (1, 2):
        state.thread = thread
        state.store(THREAD, 10 * thread)
        state.store_element(OWN_ARRAY, (5,), 100 * thread)
    state.thread = 1
    assert (state.load(THREAD), state.load_element(OWN_ARRAY, (5,))) == (10, 100)
    state.thread = 3
    assert (state.load(THREAD), state.load_element(OWN_ARRAY, (5,))) == (0, 0)


def test_an_element_that_finds_no_room_is_a_drop_and_keeps_nothing() -> None:
    state = _state(dynvarsize=99)
    state.store_element(ARRAY, (1, b"x"), 7)
    state.store_element(ARRAY, (2, b"x"), 8)
    assert state.load_element(ARRAY, (1, b"x")) == 7
    assert state.load_element(ARRAY, (2, b"x")) == 0
    assert state.drops == 1


def test_assigning_zero_frees_the_room_of_an_element() -> None:
    state = _state(dynvarsize=99)
    for number in range(10):
        state.store_element(ARRAY, (number, b"x"), 7)
        state.store_element(ARRAY, (number, b"x"), 0)
    assert state.drops == 0


def test_assigning_an_element_again_takes_no_more_room() -> None:
    state = _state(dynvarsize=99)
    for value in range(1, 10):
        state.store_element(ARRAY, (1, b"x"), value)
    assert (state.load_element(ARRAY, (1, b"x")), state.drops) == (9, 0)


def test_an_object_stays_where_it_is_and_starts_as_zero() -> None:
    state = _state()
    addr = state.address(OBJECT)
    assert state.memory.read(addr, 24) == bytes(24)
    state.end_firing()
    assert state.address(OBJECT) == addr


def test_a_local_object_and_the_place_of_strtok_end_with_the_firing() -> None:
    state = _state()
    addr = state.address(LOCAL)
    assert state.address(LOCAL) == addr
    state.strtok_rest = b"rest"
    state.end_firing()
    assert state.strtok_rest is None
    with pytest.raises(BadAddress):
        state.memory.read(addr, 1)


def test_an_element_that_is_an_object_is_made_only_where_it_is_written() -> None:
    state = _state()
    assert state.element_address(OBJECTS, (1,), create=False) == 0
    addr = state.element_address(OBJECTS, (1,), create=True)
    assert addr
    assert state.element_address(OBJECTS, (1,), create=False) == addr


def test_an_object_without_room_has_no_address() -> None:
    state = _state(dynvarsize=10)
    assert state.element_address(OBJECTS, (1,), create=True) == 0
    assert state.drops == 1
