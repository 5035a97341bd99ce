"""Lower expressions to operations. The destination is chosen first, so that no move is ever needed.

Every value is computed right into the register where it is needed. ``?:`` gives both arms the same register.

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
from probekit.ir.blocks import BlockBuilder, BlockLabel
from probekit.ir.ops import BinOp, CmpOp, Reg
from probekit.lang import typed
from probekit.lang.types import IntType, StringType
from probekit.records import fresh, mutable_record

__all__ = ("ClauseBuilder",)


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
"""The operations whose result is in the range of their type when both operands are."""


def _needs_ext(old: IntType, new: IntType) -> bool:
    """Return True when a register that holds an extended ``old`` does not hold its conversion to ``new``."""
    if new.bits == 64:
        return False
    if old.bits < new.bits:
        return old.signed and not new.signed
    return old.bits > new.bits or old.signed != new.signed


def _chain_operands(expr: typed.Logic) -> list[typed.TypedExpr]:
    """Return the operands of ``a && b && c``, without recursion: the front end bounds nesting, not such a chain."""
    out: list[typed.TypedExpr] = [expr.right]
    left = expr.left
    while isinstance(left, typed.Logic) and left.op == expr.op:
        out.append(left.right)
        left = left.left
    return [left, *reversed(out)]


@mutable_record
class ClauseBuilder:
    """Lowers the expressions of one clause."""

    blocks: BlockBuilder = fresh(BlockBuilder)
    """The clause's blocks so far."""
    _bound: dict[int, Reg] = fresh(dict)
    """The register of each bound value, by its number."""

    def branch_on(self, cond: typed.TypedExpr, then: BlockLabel, orelse: BlockLabel) -> None:
        """Go to ``then`` or ``orelse``, which are placed later. ``&&`` and ``||`` become control flow."""
        if not isinstance(cond, typed.Logic):
            self.blocks.branch(self.value(cond), then, orelse)
            return
        *others, last = _chain_operands(cond)
        for operand in others:
            middle = BlockLabel()
            if cond.op == "and":
                self.branch_on(operand, middle, orelse)
            else:
                self.branch_on(operand, then, middle)
            self.blocks.place(middle)
        self.branch_on(last, then, orelse)

    def value(self, expr: typed.TypedExpr) -> Reg:
        """Compute a value into a new register, or find the register that has it."""
        if isinstance(expr, typed.BoundValue):
            return self._bound[expr.number]
        dst = self.blocks.new_register()
        self._lower_into(expr, dst)
        return dst

    def _lower_into(self, expr: typed.TypedExpr, dst: Reg) -> None:
        match expr:
            case typed.Const():
                self.blocks.add(ops.Int(dst, expr.value))
            case typed.StringConst():
                self.blocks.add(ops.Str(dst, expr.value))
            case typed.ReadBuiltin():
                self.blocks.add(ops.LoadBuiltin(dst, expr.name))
            case typed.ReadArg():
                self.blocks.add(ops.LoadArg(dst, expr.index))
            case typed.Load():
                self.blocks.add(ops.LoadVar(dst, expr.var.index))
            case typed.Arith():
                self._lower_arith(expr, dst)
            case typed.Compare():
                left = self.value(expr.left)
                self.blocks.add(ops.Cmp(dst, _CMP[expr.op, expr.signed], left, self.value(expr.right)))
            case typed.CompareStrings():
                left = self.value(expr.left)
                self.blocks.add(ops.StrCmp(dst, _CMP[expr.op, True], left, self.value(expr.right)))
            case typed.Convert():
                self._lower_convert(expr, dst)
            case typed.Choose():
                self._if_else(
                    expr.cond, lambda: self._lower_into(expr.then, dst), lambda: self._lower_into(expr.orelse, dst)
                )
            case typed.Logic():
                self._if_else(expr, lambda: self.blocks.add(ops.Int(dst, 1)), lambda: self.blocks.add(ops.Int(dst, 0)))
            case typed.Sequence():
                self.value(expr.first)
                self._lower_into(expr.second, dst)
            case typed.Store():
                self._lower_into(expr.value, dst)
                self.blocks.add(ops.StoreVar(expr.var.index, dst))
            case typed.Increment():
                self._lower_step(expr, dst)
            case typed.BoundValue():
                self._copy(dst, self._bound[expr.number], expr.type)
            case typed.Bind():
                self._bound[expr.number] = self.value(expr.value)
                self._lower_into(expr.body, dst)
            case typed.SubroutineCall():
                args = tuple(self.value(arg) for arg in expr.args)
                self.blocks.add(ops.CallSubroutine(dst, expr.name, args))
            case _:
                self._lower_memory(expr, dst)

    def _copy(self, dst: Reg, src: Reg, t: IntType | StringType) -> None:
        self.blocks.add(ops.Copy(dst, src) if isinstance(t, StringType) else ops.Bin(dst, BinOp.OR, src, src))

    def _lower_memory(
        self,
        expr: typed.AddressOfVariable
        | typed.ElemLoad
        | typed.AddressOfElement
        | typed.ElemStore
        | typed.MemLoad
        | typed.MemStore
        | typed.BitFieldStore
        | typed.StringLoad
        | typed.StringStore
        | typed.MemCopy
        | typed.StringToScratch,
        dst: Reg,
    ) -> None:
        match expr:
            case typed.AddressOfVariable():
                self.blocks.add(ops.VarAddress(dst, expr.var.index))
            case typed.ElemLoad():
                self.blocks.add(ops.LoadElem(dst, expr.var.index, self._keys(expr.keys)))
            case typed.AddressOfElement():
                self.blocks.add(ops.ElemAddress(dst, expr.var.index, self._keys(expr.keys), expr.create))
            case typed.ElemStore():
                self._lower_into(expr.value, dst)
                self.blocks.add(ops.StoreElem(expr.var.index, self._keys(expr.keys), dst))
            case typed.MemLoad():
                addr = self.value(expr.addr)
                self.blocks.add(ops.LoadMem(dst, addr, expr.type.bits // 8, expr.type.signed))
            case typed.MemStore():
                self._lower_into(expr.value, dst)
                self.blocks.add(ops.StoreMem(self.value(expr.addr), dst, expr.type.bits // 8))
            case typed.BitFieldStore():
                self._store_bits(expr, dst)
            case typed.StringLoad():
                self.blocks.add(ops.LoadStr(dst, self.value(expr.addr), expr.limit))
            case typed.StringStore():
                self._lower_into(expr.value, dst)
                self.blocks.add(ops.StoreStr(self.value(expr.addr), dst, expr.size))
            case typed.MemCopy():
                source = self.value(expr.source)
                self._lower_into(expr.target, dst)
                self.blocks.add(ops.CopyMem(dst, source, expr.size))
            case typed.StringToScratch():
                self.blocks.add(ops.StrAddress(dst, self.value(expr.value)))
            case _:
                assert_never(expr)

    def _keys(self, keys: tuple[typed.TypedExpr, ...]) -> tuple[Reg, ...]:
        return tuple(self.value(key) for key in keys)

    def _store_bits(self, expr: typed.BitFieldStore, dst: Reg) -> None:
        """Store a bit-field: load its word, replace the bits, store the word. The value is what a load would give."""
        size, mask = expr.type.bits // 8, ((1 << expr.bits) - 1) << expr.shift
        value, addr = self.value(expr.value), self.value(expr.addr)
        old = self.blocks.new_register()
        self.blocks.add(ops.LoadMem(old, addr, size, False))
        others = self._with_constant(BinOp.AND, old, ~mask & ((1 << 64) - 1))
        bits = self._with_constant(BinOp.AND, self._with_constant(BinOp.SHL, value, expr.shift), mask)
        new = self.blocks.new_register()
        self.blocks.add(ops.Bin(new, BinOp.OR, others, bits))
        self.blocks.add(ops.StoreMem(addr, new, size))
        up = self._with_constant(BinOp.SHL, value, 64 - expr.bits)
        down = self.blocks.new_register()
        self.blocks.add(ops.Int(down, 64 - expr.bits))
        self.blocks.add(ops.Bin(dst, BinOp.SAR if expr.type.signed else BinOp.SHR, up, down))

    def _with_constant(self, op: BinOp, left: Reg, constant: int) -> Reg:
        right, result = self.blocks.new_register(), self.blocks.new_register()
        self.blocks.add(ops.Int(right, constant))
        self.blocks.add(ops.Bin(result, op, left, right))
        return result

    def _lower_arith(self, expr: typed.Arith, dst: Reg) -> None:
        t = expr.type
        left, right = self.value(expr.left), self.value(expr.right)
        op = _BIN[expr.op, t.signed]
        if t.bits == 64 or expr.op in _STAYS_EXTENDED:
            self.blocks.add(ops.Bin(dst, op, left, right))
            return
        wide = self.blocks.new_register()
        self.blocks.add(ops.Bin(wide, op, left, right))
        self.blocks.add(ops.Ext(dst, wide, t.bits, t.signed))

    def _lower_convert(self, expr: typed.Convert, dst: Reg) -> None:
        if isinstance(expr.operand.type, StringType):
            raise InternalError("a conversion between integers has a string operand")
        if _needs_ext(expr.operand.type, expr.type):
            self._add_ext(dst, self.value(expr.operand), expr.type)
        else:
            self._lower_into(expr.operand, dst)

    def _add_ext(self, dst: Reg, src: Reg, t: IntType) -> None:
        self.blocks.add(ops.Ext(dst, src, t.bits, t.signed))

    def _if_else(self, cond: typed.TypedExpr, then: Callable[[], None], orelse: Callable[[], None]) -> None:
        yes, no, end = BlockLabel(), BlockLabel(), BlockLabel()
        self.branch_on(cond, yes, no)
        self.blocks.place(yes)
        then()
        self.blocks.jump(end)
        self.blocks.place(no)
        orelse()
        self.blocks.place(end)

    def _lower_step(self, expr: typed.Increment, dst: Reg) -> None:
        t = expr.type
        other, one = self.blocks.new_register(), self.blocks.new_register()
        old, new = (other, dst) if expr.prefix else (dst, other)
        self.blocks.add(ops.LoadVar(old, expr.var.index))
        self.blocks.add(ops.Int(one, abs(expr.delta)))
        op = BinOp.ADD if expr.delta > 0 else BinOp.SUB
        if t.bits == 64:
            self.blocks.add(ops.Bin(new, op, old, one))
        else:
            wide = self.blocks.new_register()
            self.blocks.add(ops.Bin(wide, op, old, one))
            self._add_ext(new, wide, t)
        self.blocks.add(ops.StoreVar(expr.var.index, new))
