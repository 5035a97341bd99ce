"""What each operation reads and writes."""

from __future__ import annotations

from typing import get_args

import pytest

from probekit.buffers.aggs import AggPlan
from probekit.ir import ops
from probekit.ir.operands import RegisterUse, operands
from probekit.ir.ops import BinOp, CmpOp, Op, Program, Variable

_PROGRAM = Program(
    (),
    (
        Variable(0, "n", "global", "int"),
        Variable(1, "s", "global", "string", size=16),
        Variable(2, "a", "global", "string", size=16, keys=("int", "string")),
    ),
    (AggPlan(0, "a", "sum", ()),),
)

_CASES: list[tuple[Op, RegisterUse]] = [
    (ops.Int(3, 5), RegisterUse(3, "int")),
    (ops.LoadArg(3, 0), RegisterUse(3, "int")),
    (ops.Str(3, b"x"), RegisterUse(3, "string")),
    (ops.LoadBuiltin(3, "execname"), RegisterUse(3, "string")),
    (ops.LoadBuiltin(3, "pid"), RegisterUse(3, "int")),
    (ops.Bin(3, BinOp.ADD, 1, 2), RegisterUse(3, "int", ((1, "int"), (2, "int")))),
    (ops.Cmp(3, CmpOp.EQ, 1, 2), RegisterUse(3, "int", ((1, "int"), (2, "int")))),
    (ops.StrCmp(3, CmpOp.EQ, 1, 2), RegisterUse(3, "int", ((1, "string"), (2, "string")))),
    (ops.Ext(3, 1, 32, True), RegisterUse(3, "int", ((1, "int"),))),
    (ops.LoadVar(3, 0), RegisterUse(3, "int")),
    (ops.LoadVar(3, 1), RegisterUse(3, "string")),
    (ops.StoreVar(1, 3), RegisterUse(None, None, ((3, "string"),))),
    (ops.Emit(0, 3), RegisterUse(None, None, ((3, None),))),
    (ops.EmitMem(0, 3), RegisterUse(None, None, ((3, "int"),))),
    (ops.Copy(3, 1), RegisterUse(3, "string", ((1, "string"),))),
    (ops.VarAddress(3, 1), RegisterUse(3, "int")),
    (ops.LoadElem(3, 2, (4, 5)), RegisterUse(3, "string", ((4, "int"), (5, "string")))),
    (ops.StoreElem(2, (4, 5), 3), RegisterUse(None, None, ((4, "int"), (5, "string"), (3, "string")))),
    (ops.ElemAddress(3, 2, (4, 5), False), RegisterUse(3, "int", ((4, "int"), (5, "string")))),
    (ops.StrAddress(3, 1), RegisterUse(3, "int", ((1, "string"),))),
    (ops.CallSubroutine(3, "index", (1, 2)), RegisterUse(3, "int", ((1, "string"), (2, "string")))),
]


@pytest.mark.parametrize(("op", "expected"), _CASES, ids=lambda case: type(case).__name__)
def test_an_operation_names_its_registers_and_their_kinds(op: Op, expected: RegisterUse) -> None:
    assert operands(op, _PROGRAM) == expected


def test_an_aggregation_reads_the_keys_that_are_registers_then_value_and_weight() -> None:
    op = ops.UpdateAgg(0, (4, None, 5), 6, 7)
    assert operands(op, _PROGRAM).sources == ((4, None), (5, None), (6, "int"), (7, "int"))
    assert operands(ops.UpdateAgg(0, (), None), _PROGRAM).sources == ()


def test_strtok_takes_its_string_or_goes_on_with_the_one_before() -> None:
    assert operands(ops.CallSubroutine(3, "strtok", (1, 2)), _PROGRAM).sources == ((1, "string"), (2, "string"))
    assert operands(ops.CallSubroutine(3, "strtok", (1,)), _PROGRAM).sources == ((1, "string"),)


def test_no_operation_is_without_an_entry() -> None:
    def blank(kind: type) -> Op:
        values = {"keys": (), "args": (), "name": "pid" if kind is ops.LoadBuiltin else "rand"}
        return kind(**{field: values.get(field, 0) for field in kind.__match_args__})

    for kind in get_args(ops.Op):
        assert isinstance(operands(blank(kind), _PROGRAM), RegisterUse)
