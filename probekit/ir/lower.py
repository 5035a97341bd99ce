"""Expressions to operations: destination-driven, so that no move is ever needed.

:class:`ClauseBuilder` holds the blocks of one clause while they grow. Every value
is computed straight into the register that wants it; ``?:`` gives both arms the
same one. Labels are placed in order, so control only moves forward.

    a && b   (value)        branch a, L1, L2
                        L1: branch b, L3, L2
                        L2: r = int 0; jump end
                        L3: r = int 1
                        end:
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from probekit.errors import InternalError
from probekit.ir import ops
from probekit.ir.ops import BinOp, Block, CmpOp, Op, Reg, Terminator
from probekit.lang import typed
from probekit.lang.types import IntType, StringType
from probekit.records import fresh, mutable_record

__all__ = ("BlockLabel", "ClauseBuilder", "needs_ext")


@mutable_record
class BlockLabel:
    """A place that code jumps to: a block's index once placed."""

    block: int = -1


@mutable_record
class _Draft:
    """A block whose targets are still labels."""

    ops: list[Op] = fresh(list)
    end: tuple[BlockLabel, ...] | None = None
    cond: Reg | None = None


_BIN: dict[tuple[str, bool], BinOp] = {
    **{(op, signed): BinOp(op) for op in ("add", "sub", "mul", "and", "or", "xor", "shl") for signed in (True, False)},
    ("div", True): BinOp.SDIV,
    ("div", False): BinOp.UDIV,
    ("rem", True): BinOp.SREM,
    ("rem", False): BinOp.UREM,
    ("shr", True): BinOp.SAR,
    ("shr", False): BinOp.SHR,
}

_CMP: dict[tuple[str, bool], CmpOp] = {
    (op, signed): CmpOp(op if op in ("eq", "ne") else f"{'s' if signed else 'u'}{op}")
    for op in ("eq", "ne", "lt", "le", "gt", "ge")
    for signed in (True, False)
}

_STAYS_EXTENDED = frozenset(("and", "or", "xor", "rem", "shr"))
"""Operations that cannot leave the range of their type when both operands are in it."""


def needs_ext(old: IntType, new: IntType) -> bool:
    """True when a register that holds ``old``, extended, does not hold its conversion to ``new``."""
    if new.bits == 64:
        return False
    if old.bits < new.bits:
        return old.signed and not new.signed
    return old.bits > new.bits or old.signed != new.signed


def _operands(expr: typed.Logic) -> list[typed.TypedExpr]:
    """The operands of ``a && b && c`` (the front end bounds nesting, not the length of such a chain)."""
    out: list[typed.TypedExpr] = [expr.right]
    left = expr.left
    while isinstance(left, typed.Logic) and left.op == expr.op:
        out.append(left.right)
        left = left.left
    return [left, *reversed(out)]


@mutable_record
class ClauseBuilder:
    """The blocks and registers of one clause."""

    registers: int = 0
    _drafts: list[_Draft] = fresh(lambda: [_Draft()])
    _slots: dict[int, Reg] = fresh(dict)

    # Blocks.

    def label(self) -> BlockLabel:
        """A place to jump to, not placed yet."""
        return BlockLabel()

    @property
    def position(self) -> int:
        """The index of the block being filled."""
        return len(self._drafts) - 1

    def place(self, label: BlockLabel) -> None:
        """Start a block here; the one before falls into it."""
        if label.block >= 0:
            raise InternalError("label placed twice")
        if self._drafts[-1].end is None:
            self._drafts[-1].end = (label,)
        self._drafts.append(_Draft())
        label.block = self.position

    def jump(self, label: BlockLabel) -> None:
        """End the block with a jump."""
        self._drafts[-1].end = (label,)

    def branch(self, cond: Reg, then: BlockLabel, orelse: BlockLabel) -> None:
        """End the block with a branch."""
        self._drafts[-1].cond = cond
        self._drafts[-1].end = (then, orelse)

    def finish(self, end: BlockLabel) -> None:
        """Place the last block, which returns."""
        self.place(end)

    def blocks(self) -> tuple[Block, ...]:
        """The finished blocks."""
        return tuple(Block(tuple(draft.ops), self._terminator(draft)) for draft in self._drafts)

    @staticmethod
    def _terminator(draft: _Draft) -> Terminator:
        match draft.end, draft.cond:
            case None, _:
                return ops.Return()
            case (target,), _:
                return ops.Jump(target.block)
            case (then, orelse), int(cond):
                return ops.Branch(cond, then.block, orelse.block)
        raise InternalError("a draft ends in nothing known")

    # Effects.

    def emit(self, index: int, src: Reg) -> None:
        """Record a field."""
        self._add(ops.Emit(index, src))

    def emit_memory(self, index: int, addr: Reg) -> None:
        """Record a field that is bytes in memory."""
        self._add(ops.EmitMem(index, addr))

    def aggregate(self, agg: int, keys: tuple[Reg | None, ...], value: Reg | None, weight: Reg | None) -> None:
        """Feed an aggregation."""
        self._add(ops.Aggregate(agg, keys, value, weight))

    def branch_on(self, cond: typed.TypedExpr, then: BlockLabel, orelse: BlockLabel) -> None:
        """Go to ``then`` or ``orelse``; both are placed later. ``&&`` and ``||`` become control flow."""
        if not isinstance(cond, typed.Logic):
            self.branch(self.value(cond), then, orelse)
            return
        *others, last = _operands(cond)
        for operand in others:
            middle = self.label()
            if cond.op == "and":
                self.branch_on(operand, middle, orelse)
            else:
                self.branch_on(operand, then, middle)
            self.place(middle)
        self.branch_on(last, then, orelse)

    # Values.

    def value(self, expr: typed.TypedExpr) -> Reg:
        """Compute into a new register, or find the one that has it."""
        if isinstance(expr, typed.BoundValue):
            return self._slots[expr.number]
        dst = self._register()
        self._into(expr, dst)
        return dst

    def _register(self) -> Reg:
        self.registers += 1
        return self.registers - 1

    def _add(self, op: Op) -> None:
        self._drafts[-1].ops.append(op)

    def _into(self, expr: typed.TypedExpr, dst: Reg) -> None:
        match expr:
            case typed.Const():
                self._add(ops.Int(dst, expr.value))
            case typed.Text():
                self._add(ops.Str(dst, expr.value))
            case typed.ReadBuiltin():
                self._add(ops.Builtin(dst, expr.name))
            case typed.ReadArg():
                self._add(ops.Arg(dst, expr.index))
            case typed.Load():
                self._add(ops.LoadVar(dst, expr.var.index))
            case typed.Arith():
                self._arith(expr, dst)
            case typed.Compare():
                left = self.value(expr.left)
                self._add(ops.Cmp(dst, _CMP[expr.op, expr.signed], left, self.value(expr.right)))
            case typed.CompareText():
                left = self.value(expr.left)
                self._add(ops.StrCmp(dst, _CMP[expr.op, True], left, self.value(expr.right)))
            case typed.Convert():
                self._convert(expr, dst)
            case typed.Choose():
                self._either(expr.cond, lambda: self._into(expr.then, dst), lambda: self._into(expr.orelse, dst))
            case typed.Logic():
                self._either(expr, lambda: self._add(ops.Int(dst, 1)), lambda: self._add(ops.Int(dst, 0)))
            case typed.Sequence():
                self.value(expr.first)
                self._into(expr.second, dst)
            case typed.Store():
                self._into(expr.value, dst)
                self._add(ops.StoreVar(expr.var.index, dst))
            case typed.Step():
                self._step(expr, dst)
            case typed.BoundValue():
                self._copy(dst, self._slots[expr.number], expr.type)
            case typed.Bind():
                self._slots[expr.number] = self.value(expr.value)
                self._into(expr.body, dst)
            case typed.Invoke():
                args = tuple(self.value(arg) for arg in expr.args)
                self._add(ops.Call(dst, expr.name, args))
            case _:
                self._memory(expr, dst)

    def _copy(self, dst: Reg, src: Reg, t: IntType | StringType) -> None:
        self._add(ops.Copy(dst, src) if isinstance(t, StringType) else ops.Bin(dst, BinOp.OR, src, src))

    def _memory(
        self,
        expr: typed.AddressOfVariable
        | typed.ElemLoad
        | typed.AddressOfElement
        | typed.ElemStore
        | typed.MemLoad
        | typed.MemStore
        | typed.MemBits
        | typed.MemText
        | typed.MemTextStore
        | typed.MemCopy
        | typed.TextAddr,
        dst: Reg,
    ) -> None:
        match expr:
            case typed.AddressOfVariable():
                self._add(ops.VarAddr(dst, expr.var.index))
            case typed.ElemLoad():
                self._add(ops.LoadElem(dst, expr.var.index, self._keys(expr.keys)))
            case typed.AddressOfElement():
                self._add(ops.ElemAddr(dst, expr.var.index, self._keys(expr.keys), expr.create))
            case typed.ElemStore():
                self._into(expr.value, dst)
                self._add(ops.StoreElem(expr.var.index, self._keys(expr.keys), dst))
            case typed.MemLoad():
                addr = self.value(expr.addr)
                self._add(ops.LoadMem(dst, addr, expr.type.bits // 8, expr.type.signed))
            case typed.MemStore():
                self._into(expr.value, dst)
                self._add(ops.StoreMem(self.value(expr.addr), dst, expr.type.bits // 8))
            case typed.MemBits():
                self._bits(expr, dst)
            case typed.MemText():
                self._add(ops.LoadStr(dst, self.value(expr.addr), expr.limit))
            case typed.MemTextStore():
                self._into(expr.value, dst)
                self._add(ops.StoreStr(self.value(expr.addr), dst, expr.size))
            case typed.MemCopy():
                source = self.value(expr.source)
                self._into(expr.target, dst)
                self._add(ops.CopyMem(dst, source, expr.size))
            case typed.TextAddr():
                self._add(ops.StrAddr(dst, self.value(expr.value)))
            case _:
                assert_never(expr)

    def _keys(self, keys: tuple[typed.TypedExpr, ...]) -> tuple[Reg, ...]:
        return tuple(self.value(key) for key in keys)

    def _bits(self, expr: typed.MemBits, dst: Reg) -> None:
        """Read, replace the bits, write; the value is the bits as the member's type reads them."""
        size, mask = expr.type.bits // 8, ((1 << expr.bits) - 1) << expr.shift
        value, addr = self.value(expr.value), self.value(expr.addr)
        old = self._register()
        self._add(ops.LoadMem(old, addr, size, False))
        kept = self._with(BinOp.AND, old, ~mask & ((1 << 64) - 1))
        put = self._with(BinOp.AND, self._with(BinOp.SHL, value, expr.shift), mask)
        new = self._register()
        self._add(ops.Bin(new, BinOp.OR, kept, put))
        self._add(ops.StoreMem(addr, new, size))
        up = self._with(BinOp.SHL, value, 64 - expr.bits)
        down = self._register()
        self._add(ops.Int(down, 64 - expr.bits))
        self._add(ops.Bin(dst, BinOp.SAR if expr.type.signed else BinOp.SHR, up, down))

    def _with(self, op: BinOp, left: Reg, constant: int) -> Reg:
        right, result = self._register(), self._register()
        self._add(ops.Int(right, constant))
        self._add(ops.Bin(result, op, left, right))
        return result

    def _arith(self, expr: typed.Arith, dst: Reg) -> None:
        t = expr.type
        left, right = self.value(expr.left), self.value(expr.right)
        op = _BIN[expr.op, t.signed]
        if t.bits == 64 or expr.op in _STAYS_EXTENDED:
            self._add(ops.Bin(dst, op, left, right))
            return
        wide = self._register()
        self._add(ops.Bin(wide, op, left, right))
        self._add(ops.Ext(dst, wide, t.bits, t.signed))

    def _convert(self, expr: typed.Convert, dst: Reg) -> None:
        if isinstance(expr.operand.type, StringType):
            raise InternalError("an operator of integers has a string operand")
        if needs_ext(expr.operand.type, expr.type):
            self._add_ext(dst, self.value(expr.operand), expr.type)
        else:
            self._into(expr.operand, dst)

    def _add_ext(self, dst: Reg, src: Reg, t: IntType) -> None:
        self._add(ops.Ext(dst, src, t.bits, t.signed))

    def _either(self, cond: typed.TypedExpr, then: Callable[[], None], orelse: Callable[[], None]) -> None:
        yes, no, end = self.label(), self.label(), self.label()
        self.branch_on(cond, yes, no)
        self.place(yes)
        then()
        self.jump(end)
        self.place(no)
        orelse()
        self.place(end)

    def _step(self, expr: typed.Step, dst: Reg) -> None:
        t = expr.type
        old, new, one = (
            (self._register(), dst, self._register()) if expr.prefix else (dst, self._register(), self._register())
        )
        self._add(ops.LoadVar(old, expr.var.index))
        self._add(ops.Int(one, abs(expr.delta)))
        op = BinOp.ADD if expr.delta > 0 else BinOp.SUB
        if t.bits == 64:
            self._add(ops.Bin(new, op, old, one))
        else:
            wide = self._register()
            self._add(ops.Bin(wide, op, old, one))
            self._add_ext(new, wide, t)
        self._add(ops.StoreVar(expr.var.index, new))
