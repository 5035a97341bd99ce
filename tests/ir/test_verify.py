"""The verifier finds what it promises to find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probekit.buffers.actions import RecordField, RecordPlan, TraceAction
from probekit.buffers.aggs import AggPlan, KeyPart
from probekit.ir import ops
from probekit.ir.ops import BasicBlock, BinOp, Clause, CmpOp, Op, Program, Terminator, Variable
from probekit.ir.verify import verify_program

_FIELD = RecordPlan(
    (RecordField(0, 8, "int"), RecordField(8, 0, "probe", "probefunc")), (TraceAction(0), TraceAction(1)), 8
)
_GOOD = (ops.LoadArg(0, 0), ops.Emit(0, 0))


def _texts(*blocks: tuple[tuple[Op, ...], Terminator], record: RecordPlan | None = None, body: int = 0) -> list[str]:
    clause = Clause(0, (), tuple(BasicBlock(o, end) for o, end in blocks), body, record, registers=4)
    program = Program(
        (clause,),
        (Variable(0, "s", "global", "string", size=16),),
        (AggPlan(0, "a", "sum", (KeyPart("string", 16), KeyPart("probe", detail="probefunc"))),),
    )
    return [v.text for v in verify_program(program)]


def test_sound() -> None:
    assert _texts((_GOOD, ops.Return()), record=_FIELD) == []


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (ops.Int(0, 1 << 64), "does not fit"),
        (ops.Str(0, b"a\0"), "NUL"),
        (ops.LoadArg(0, 10), "no arg10"),
        (ops.LoadBuiltin(0, "nosuch"), "no built-in"),
        (ops.Ext(0, 0, 64, True), "extension"),
        (ops.LoadVar(0, 1), "no variable"),
        (ops.StoreVar(-1, 0), "no variable"),
        (ops.Emit(2, 0), "no field"),
        (ops.UpdateAgg(1, (), None), "no aggregation"),
        (ops.LoadArg(4, 0), "registers"),
        (ops.Bin(0, BinOp.ADD, 0, 1), "before it is written"),
        (ops.Cmp(0, CmpOp.EQ, 2, 2), "wanted int"),
        (ops.StrCmp(0, CmpOp.EQ, 2, 3), "wanted string"),
        (ops.StoreVar(0, 3), "wanted string"),
        (ops.Str(3, b""), "both integers and strings"),
        (ops.Emit(0, 2), "wanted int"),
        (ops.UpdateAgg(0, (3, None), 3), "wanted string"),
        (ops.UpdateAgg(0, (2, None), 2), "wanted int"),
        (ops.UpdateAgg(0, (2,), 3), "1 keys for 2 parts"),
        (ops.UpdateAgg(0, (2, 3), 3), "probe part"),
        (ops.UpdateAgg(0, (2, None), None), "lacks its value"),
        (ops.Emit(1, 3), "no bytes"),
    ],
)
def test_operations(op: Op, text: str) -> None:
    setup: tuple[Op, ...] = (ops.Str(2, b"x"), ops.Int(3, 1))
    found = _texts(((*setup, op, ops.LoadArg(0, 0), ops.Emit(0, 0)), ops.Return()), record=_FIELD)
    assert any(text in f for f in found), found


def test_control() -> None:
    assert _texts() == ["no blocks"]
    assert _texts(((), ops.Jump(0))) == ["b0 is not a later block"]
    assert _texts(((), ops.Jump(1))) == ["b1 is not a later block"]
    assert _texts(((), ops.Return()), body=3) == ["body b3 does not exist"]


def test_a_register_must_be_written_on_every_path() -> None:
    blocks = (
        ((ops.LoadArg(0, 0),), ops.Branch(0, 1, 2)),
        ((ops.Int(1, 1),), ops.Jump(2)),
        ((ops.Bin(2, BinOp.ADD, 1, 1),), ops.Return()),
    )
    assert "r1 is read before it is written on every path" in _texts(*blocks)


def test_fields_on_every_path_once() -> None:
    branch = ((ops.LoadArg(0, 0),), ops.Branch(0, 1, 2))
    found = _texts(branch, ((ops.Emit(0, 0),), ops.Jump(2)), ((), ops.Return()), record=_FIELD)
    assert "paths to b2 emit different fields" in found
    assert "fields [0] are never emitted" in _texts(((), ops.Return()), record=_FIELD)
    assert "field 0 is emitted twice" in _texts(((*_GOOD, ops.Emit(0, 0)), ops.Return()), record=_FIELD)
    predicate = ((*_GOOD,), ops.Jump(1)), ((), ops.Return())
    assert "emit outside the body" in _texts(*predicate, record=_FIELD, body=1)


def test_records() -> None:
    overlapping = replace(_FIELD, fields=(RecordField(0, 8, "int"), RecordField(4, 4, "int")))
    assert any("outside its place" in t for t in _texts((_GOOD, ops.Return()), record=overlapping))
    unknown = replace(_FIELD, actions=(TraceAction(5),))
    assert any("does not exist" in t for t in _texts((_GOOD, ops.Return()), record=unknown))
