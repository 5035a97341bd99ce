"""Where the registers of a clause are: in no memory where they need none."""

from __future__ import annotations

import pytest

from probekit.codegen.reg_alloc import (
    LEADING_ARGUMENTS,
    REMATERIALIZED_BUILTINS,
    FiringKind,
    RegAllocation,
    allocate_registers,
    allocate_strings,
    dead_registers,
    longest_string,
)
from probekit.ir.build import compile_program
from probekit.ir.ops import Clause, Int, LoadArg, LoadBuiltin, LoadVar, Program, Str


def compiled(text: str) -> tuple[Clause, Program]:
    program = compile_program(text)
    return program.clauses[-1], program


def allocated(body: str, kind: FiringKind = "entry", declarations: str = "") -> RegAllocation:
    clause, program = compiled(f"{declarations} fbt::f:entry {{ {body} }}")
    return allocate_registers(clause, kind, program)


def test_the_example_of_the_module_needs_no_slot() -> None:
    clause, program = compiled("fbt::f:entry /arg0 + arg1 > 3/ { @ = count(); }")
    found = allocate_registers(clause, "entry", program)
    assert found.slots == {}
    assert list(found.constants.values()) == [3]
    assert [(type(op), op.index) for op in found.rematerialized.values() if isinstance(op, LoadArg)] == [
        (LoadArg, 0),
        (LoadArg, 1),
    ]


def test_only_a_value_that_is_not_read_first_by_the_next_operation_has_a_slot() -> None:
    found = allocated("trace(arg0 * arg1);")
    assert found.slots == {}, "the product is recorded by the next operation"
    found = allocated("trace((arg0 * arg1) - (arg2 * arg3));")
    assert sorted(found.slots.values()) == [0, 1], "the first product waits, and the second one is not read first"


def test_a_register_that_two_blocks_set_is_no_constant() -> None:
    clause, program = compiled("fbt::f:entry { trace(arg0 ? 1 : 2); }")
    found = allocate_registers(clause, "entry", program)
    ones = [op.dst for block in clause.blocks for op in block.ops if isinstance(op, Int)]
    assert len(set(ones)) == 1
    assert ones[0] not in found.constants
    assert ones[0] in found.slots


def test_the_first_argument_of_a_return_is_in_the_site_table() -> None:
    assert len(allocated("trace(arg0 + arg1);", "entry").rematerialized) == 2
    found = allocated("trace(arg0 + arg1);", "return").rematerialized
    assert [op.index for op in found.values() if isinstance(op, LoadArg)] == [1]


def test_only_the_unwinder_knows_the_caller_of_an_instruction() -> None:
    assert len(allocated("trace(caller);", "entry").rematerialized) == 1
    assert allocated("trace(caller);", "instruction").rematerialized == {}


@pytest.mark.parametrize("name", sorted({*REMATERIALIZED_BUILTINS} - {"percpu_offset"}))  # which has no name in D
def test_a_fact_is_loaded_where_it_is_read(name: str) -> None:
    found = allocated(f"trace({name}); trace({name});")
    assert [op.name for op in found.rematerialized.values() if isinstance(op, LoadBuiltin)] == [name, name]
    assert found.slots == {}


def test_a_probe_name_that_is_only_recorded_is_dead() -> None:
    clause, program = compiled("fbt::f:entry { trace(probefunc); }")
    assert dead_registers(clause) == frozenset()  # the field has no bytes, so nothing loads the name
    clause, program = compiled("fbt::f:entry { probefunc; trace(1); }")
    (dead,) = dead_registers(clause)
    found = allocate_registers(clause, "entry", program)
    names = [op for block in clause.blocks for op in block.ops if isinstance(op, LoadBuiltin)]
    assert [op.dst for op in names] == [dead]
    assert not any(found.has_code(op) for op in names)


def test_strings_lie_apart_with_a_spare_word_after_each() -> None:
    clause, program = compiled('fbt::f:entry { trace(strjoin(strjoin(execname, "a"), strjoin(execname, "b"))); }')
    slots, size = allocate_strings(clause, program)
    step = program.string_size + 8
    assert sorted(slots.values()) == [0, step, 2 * step]
    assert size == 3 * step


def test_a_stack_takes_as_many_words_as_it_has_frames() -> None:
    clause, program = compiled("fbt::f:entry { @[stack(5)] = count(); }")
    slots, size = allocate_strings(clause, program)
    assert list(slots.values()) == [0]
    assert size == 8 * 5 + 8


def test_a_string_variable_is_copied_only_when_it_could_change() -> None:
    declarations = "string s;"
    assert len(allocated("trace(s);", declarations=declarations).read_in_place) == 1
    found = allocated('trace(strjoin(s, (s = "b")));', declarations=declarations)
    clause, _ = compiled(f'{declarations} fbt::f:entry {{ trace(strjoin(s, (s = "b"))); }}')
    (loaded,) = [op.dst for block in clause.blocks for op in block.ops if isinstance(op, LoadVar)]
    assert loaded not in found.read_in_place
    assert loaded in found.string_slots


def test_only_names_and_constants_end_in_nuls_up_to_16_bytes() -> None:
    clause, program = compiled('fbt::f:entry { @[execname, "x", strjoin(execname, "y")] = count(); }')
    found = allocate_registers(clause, "entry", program)
    padded = {op.dst for block in clause.blocks for op in block.ops if isinstance(op, Str | LoadBuiltin)}
    assert found.padded == padded


@pytest.mark.parametrize(("string_size", "longest"), [(16, 256), (256, 256), (1000, 1000)])
def test_the_longest_string_is_as_long_as_strings_may_be_or_as_a_probe_name(string_size: int, longest: int) -> None:
    assert longest_string(compile_program("fbt::f:entry { trace(execname); }", string_size=string_size)) == longest


def test_arguments_of_a_function_come_after_those_of_the_hook() -> None:
    assert LEADING_ARGUMENTS == {"entry": 0, "instruction": 0, "tracepoint": 1, "marker": 2}
