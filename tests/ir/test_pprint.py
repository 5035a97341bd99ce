"""The IR as text."""

from __future__ import annotations

import pytest

from probekit.buffers.aggs import AggPlan, KeyPart
from probekit.ir import ops
from probekit.ir.build import compile_program
from probekit.ir.ops import BinOp, CmpOp, Op, Program, Variable
from probekit.ir.pprint import format_op, format_program

_PROGRAM = Program(
    (),
    (Variable(0, "x", "self", "int", bits=32), Variable(1, "a", "global", "string", size=16, keys=("int",))),
    (AggPlan(0, "q", "lquantize", (KeyPart("string", 16), KeyPart("probe", detail="probefunc")), (0, 10, 1)),),
)


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (ops.Int(1, -5), "r1 = int -5"),
        (ops.Str(1, b"a\n"), r"r1 = str b'a\n'"),
        (ops.Bin(2, BinOp.ADD, 0, 1), "r2 = add r0, r1"),
        (ops.Cmp(2, CmpOp.EQ, 0, 1), "r2 = cmp eq r0, r1"),
        (ops.Ext(1, 0, 32, True), "r1 = sext32 r0"),
        (ops.Ext(1, 0, 8, False), "r1 = zext8 r0"),
        (ops.LoadVar(1, 0), "r1 = load self->x"),
        (ops.LoadVar(1, 9), "r1 = load v9"),
        (ops.StoreElem(1, (2,), 3), "store a[r2], r3"),
        (ops.ElemAddress(3, 1, (2,), True), "r3 = address a[r2] create"),
        (ops.LoadMem(1, 0, 4, False), "r1 = umem32 r0"),
        (ops.UpdateAgg(0, (2, None), 3, 4), "aggregate @0 [r2, probefunc] r3 times r4"),
        (ops.UpdateAgg(7, (None,), None), "aggregate @7 [probe]"),
        (ops.CallSubroutine(1, "index", (2, 3)), "r1 = index(r2, r3)"),
    ],
)
def test_an_operation_is_one_line(op: Op, text: str) -> None:
    assert format_op(op, _PROGRAM) == text


def test_variables_and_aggregations_come_before_the_clauses() -> None:
    assert format_program(_PROGRAM) == (
        "variable 0: self int32 x\n"
        "variable 1: global string[16] a[int]\n"
        "aggregation 0: @q[string[16], probefunc] = lquantize(0, 10, 1)\n"
    )


def test_a_clause_shows_its_record_and_labels_each_block_once() -> None:
    assert (
        format_program(compile_program('BEGIN /pid == 7/ { printf("%d", pid); }'))
        == """\
clause 0: :::BEGIN
  record: 8 bytes
    field 0: int[4] at 0
    printf '%d' [0]
  b0:  r1 = builtin pid
       r2 = int 7
       r0 = cmp eq r1, r2
       branch r0, b1, b2
  b1:  r3 = builtin pid
       emit 0, r3
       jump b2
  b2:  return
"""
    )
