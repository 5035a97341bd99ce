"""Follow a few instructions whose registers are known, to find where they lead.

The compiler makes a tree of comparisons of a ``switch``. With the value it was given, its way through is known::

    Follower(code, addr).leaves_to({"rsi": 4})   ->  the address of __ia32_sys_write

        cmp esi, 0x80
        ja a                        not taken
        cmp esi, 4
        je b                        taken
    b:  jmp __ia32_sys_write

Only what such trees consist of is understood. Anything else ends the way, and nothing is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from iced_x86 import Code, ConditionCode, Decoder, FlowControl, Instruction, Mnemonic, OpKind, Register, RegisterExt

__all__ = ("Follower",)

_MAX_STEPS: Final = 200
_NAMES: Final = {value: name.lower() for name, value in vars(Register).items() if isinstance(value, int)}
_IMMEDIATES: Final = frozenset(
    value for name, value in vars(OpKind).items() if name.startswith("IMMEDIATE") and isinstance(value, int)
)
_NO_REGISTER: Final = int(Register.NONE)
_READ_ONLY: Final = frozenset((Mnemonic.CMP, Mnemonic.TEST, Mnemonic.BT))
_COMPUTED: Final = _READ_ONLY | {
    *(Mnemonic.ADD, Mnemonic.AND, Mnemonic.OR, Mnemonic.SHL, Mnemonic.SHR, Mnemonic.SUB, Mnemonic.XOR),
}
_SKIPPED: Final = frozenset((Mnemonic.NOP, Mnemonic.ENDBR64, Mnemonic.PUSH, Mnemonic.POP))


class _Unknown(Exception):
    """The way depends on something that is not known."""


class _Flags:
    """The flags after an operation with a result of ``bits`` bits."""

    def __init__(self, result: int, bits: int, *, carry: bool, overflow: bool) -> None:
        self.zero = result == 0
        self.sign = bool(result >> bits - 1)
        self.carry = carry
        self.overflow = overflow


_CONDITIONS: Final[Mapping[int, Callable[[_Flags], bool]]] = {
    ConditionCode.B: lambda f: f.carry,
    ConditionCode.AE: lambda f: not f.carry,
    ConditionCode.E: lambda f: f.zero,
    ConditionCode.NE: lambda f: not f.zero,
    ConditionCode.BE: lambda f: f.carry or f.zero,
    ConditionCode.A: lambda f: not (f.carry or f.zero),
    ConditionCode.S: lambda f: f.sign,
    ConditionCode.NS: lambda f: not f.sign,
    ConditionCode.L: lambda f: f.sign != f.overflow,
    ConditionCode.GE: lambda f: f.sign == f.overflow,
    ConditionCode.LE: lambda f: f.zero or f.sign != f.overflow,
    ConditionCode.G: lambda f: not f.zero and f.sign == f.overflow,
}


class Follower:
    """Follows ways through one function. Decodes each instruction once."""

    def __init__(self, code: bytes, addr: int) -> None:
        """Take the function's bytes and its address."""
        self._code = code
        self._addr = addr
        self._known: dict[int, Instruction] = {}

    def leaves_to(self, values: Mapping[str, int]) -> int | None:
        """Return the first address outside that is jumped to, or that is called.

        It is 0 where the function returns before that, and None where that is not found out. ``values``: the 64-bit
        registers that are known at the start, by name. A call at the very start is ftrace's.
        """
        state = _State(dict(values))
        at, first = self._addr, True
        try:
            for _ in range(_MAX_STEPS):
                insn = self._insn(at)
                flow = insn.flow_control
                if flow == FlowControl.CALL and not first:
                    return int(insn.near_branch_target)
                if flow == FlowControl.UNCONDITIONAL_BRANCH or (
                    flow == FlowControl.CONDITIONAL_BRANCH and state.condition(insn)
                ):
                    at = int(insn.near_branch_target)
                    if not self._addr <= at < self._addr + len(self._code):
                        return at
                    first = False
                    continue
                if flow == FlowControl.NEXT:
                    state.execute(insn)
                elif flow not in (FlowControl.CALL, FlowControl.CONDITIONAL_BRANCH):
                    return 0 if flow == FlowControl.RETURN else None
                first = first and insn.mnemonic == Mnemonic.ENDBR64
                at = int(insn.next_ip)
        except _Unknown:
            return None
        return None

    def _insn(self, at: int) -> Instruction:
        known = self._known.get(at)
        if known is None:
            start = at - self._addr
            if not 0 <= start < len(self._code):
                raise _Unknown
            known = self._known[at] = Decoder(64, self._code[start : start + 15], ip=at).decode()
        if known.code == Code.INVALID:
            raise _Unknown
        return known


class _State:
    """Registers and flags, as far as they are known."""

    def __init__(self, values: dict[str, int]) -> None:
        self._values = values
        self._flags: _Flags | None = None

    def condition(self, insn: Instruction) -> bool:
        """Return whether a conditional jump jumps."""
        test = _CONDITIONS.get(insn.condition_code)
        if self._flags is None or test is None:
            raise _Unknown
        return test(self._flags)

    def execute(self, insn: Instruction) -> None:
        """Change registers and flags as an instruction does that control just passes."""
        mnemonic = insn.mnemonic
        if mnemonic in _SKIPPED:
            return
        if mnemonic in (Mnemonic.MOV, Mnemonic.MOVZX):
            self._set(insn, self._get(insn, 1))
        elif mnemonic == Mnemonic.MOVSXD:
            value = self._get(insn, 1)
            self._set(insn, None if value is None else (value ^ 1 << 31) - (1 << 31))
        elif mnemonic == Mnemonic.LEA:
            self._set(insn, self._address(insn))
        else:
            self._compute(insn, mnemonic)

    def _compute(self, insn: Instruction, mnemonic: int) -> None:
        if mnemonic not in _COMPUTED:
            raise _Unknown
        left, right = self._get(insn, 0), self._get(insn, 1) if insn.op_count > 1 else 1
        registers = {int(insn.op_register(n)) for n in range(insn.op_count) if insn.op_kind(n) == OpKind.REGISTER}
        if mnemonic == Mnemonic.XOR and len(registers) == 1 and insn.op1_kind == OpKind.REGISTER == insn.op0_kind:
            left = right = 0
        if left is None or right is None:
            self._flags = None
            if mnemonic not in _READ_ONLY:
                self._set(insn, None)
            return
        bits = _bits(insn)
        mask = (1 << bits) - 1
        carry = overflow = False
        match mnemonic:
            case Mnemonic.CMP | Mnemonic.SUB:
                result = left - right & mask
                carry = left < right
                overflow = bool((left ^ right) & (left ^ result) & 1 << bits - 1)
            case Mnemonic.ADD:
                result = left + right & mask
                carry = left + right > mask
                overflow = bool(~(left ^ right) & (left ^ result) & 1 << bits - 1)
            case Mnemonic.TEST | Mnemonic.AND:
                result = left & right
            case Mnemonic.OR:
                result = left | right
            case Mnemonic.XOR:
                result = left ^ right
            case Mnemonic.SHL:
                result = left << (right & bits - 1) & mask
            case Mnemonic.SHR:
                result = left >> (right & bits - 1)
            case Mnemonic.BT:
                result, carry = left, bool(left >> (right & bits - 1) & 1)
            case _:
                raise _Unknown
        self._flags = _Flags(result, bits, carry=carry, overflow=overflow)
        if mnemonic not in _READ_ONLY:
            self._set(insn, result)
        if mnemonic in (Mnemonic.SHL, Mnemonic.SHR):
            self._flags = None  # the overflow flag, and all of them after a shift by 0, are not worth knowing

    def _get(self, insn: Instruction, index: int) -> int | None:
        """Return an operand; None for one that is not known."""
        kind = insn.op_kind(index)
        if kind in _IMMEDIATES:
            return int(insn.immediate(index)) & (1 << _bits(insn)) - 1
        if kind != OpKind.REGISTER or insn.op_register(index) in _HIGH_BYTES:
            return None
        register = insn.op_register(index)
        value = self._values.get(_full(register))
        return None if value is None else value & (1 << 8 * RegisterExt.size(register)) - 1

    def _set(self, insn: Instruction, value: int | None) -> None:
        """Set the first operand; None makes it unknown. Memory is not looked at."""
        if insn.op0_kind != OpKind.REGISTER:
            return
        size, full = RegisterExt.size(insn.op0_register), _full(insn.op0_register)
        if value is None or size < 4:
            self._values.pop(full, None)
        else:
            self._values[full] = value & (1 << 8 * size) - 1  # 32 bits clear the upper half

    def _address(self, insn: Instruction) -> int | None:
        """Return the address that ``lea`` computes."""
        total = int(insn.memory_displacement)
        if insn.is_ip_rel_memory_operand:
            return total
        for register, scale in ((insn.memory_base, 1), (insn.memory_index, insn.memory_index_scale)):
            if register != _NO_REGISTER:
                value = self._values.get(_full(register))
                if value is None:
                    return None
                total += value * scale
        return total & (1 << 64) - 1


_HIGH_BYTES: Final = frozenset((Register.AH, Register.BH, Register.CH, Register.DH))


def _full(register: Any) -> str:
    return _NAMES[RegisterExt.full_register(register)]


def _bits(insn: Instruction) -> int:
    """Return the width of the first operand; of one in memory 64, as its value is not known anyway."""
    return int(8 * RegisterExt.size(insn.op0_register)) if insn.op0_kind == OpKind.REGISTER else 64
