"""Tell whether a decoded instruction is the one that was asked for.

:func:`mismatch` compares a parsed :class:`~probekit.isa.asm_syntax.Statement` with
iced's reading of the assembled bytes. Two forms with the same meaning are equal:
`jz`/`je`, `[rax + rbx]`/`[rbx + rax]`, `xchg a, b`/`xchg b, a`, an absolute
address reached RIP-relative. ::

    mov eax, 0x123456789  ->  b8 89 67 45 23    "0x123456789 does not fit the 4-byte operand"
"""

from __future__ import annotations

from collections.abc import Mapping

from iced_x86 import Instruction, MemorySizeExt, OpKind, Register

from probekit.isa.asm_syntax import Imm, LabelRef, Mem, Operand, Reg, Statement
from probekit.isa.decode import mnemonic_name

__all__ = ("mismatch",)

_MASK64 = (1 << 64) - 1

# Condition codes with several names, each with the name that iced uses.
_CONDITIONS = {
    "z": "e", "nz": "ne", "c": "b", "nae": "b", "nb": "ae", "nc": "ae", "na": "be", "nbe": "a",
    "nge": "l", "nl": "ge", "ng": "le", "nle": "g", "pe": "p", "po": "np",
}  # fmt: skip
_ALIASES = {
    f"{stem}{other}": f"{stem}{name}" for stem in ("j", "set", "cmov") for other, name in _CONDITIONS.items()
} | {"movabs": "mov", "sal": "shl", "loopz": "loope", "loopnz": "loopne"}

_NAMES = {value: name.lower() for name, value in vars(Register).items() if isinstance(value, int)}
_NONE = ""
_NAMES[Register.NONE] = _NONE

_IMMEDIATE_BITS: dict[int, int] = {
    OpKind.IMMEDIATE8: 8,
    OpKind.IMMEDIATE8_2ND: 8,
    OpKind.IMMEDIATE16: 16,
    OpKind.IMMEDIATE32: 32,
    OpKind.IMMEDIATE64: 64,
    OpKind.IMMEDIATE8TO16: 16,
    OpKind.IMMEDIATE8TO32: 32,
    OpKind.IMMEDIATE8TO64: 64,
    OpKind.IMMEDIATE32TO64: 64,
}
_BRANCHES = frozenset({int(OpKind.NEAR_BRANCH64)})
_MEMORY = int(OpKind.MEMORY)
_REGISTER = int(OpKind.REGISTER)
_COMMUTE = frozenset({"xchg", "test"})
_STRINGS = frozenset(f"{stem}{size}" for stem in ("movs", "stos", "lods", "scas", "cmps") for size in "bwdq")
# A register operand of these does not imply the size of the memory operand: the text must say it.
_SIZE_NOT_IMPLIED = frozenset({"movzx", "movsx", "movsxd", "shl", "shr", "sar", "rol", "ror", "rcl", "rcr"})
_SIZELESS = frozenset({"lea", "cmpxchg16b", "cmpxchg8b", "invlpg", "clflush", "clflushopt", "fxsave", "fxrstor"})


def mismatch(asked: Statement, insn: Instruction, labels: Mapping[str, int]) -> str | None:
    """Return why ``insn`` is not what was asked, or None. ``labels``: the address of every label of the block."""
    name = mnemonic_name(insn)
    if _ALIASES.get(asked.mnemonic, asked.mnemonic) != name:
        return f"assembled to {name}"
    if _prefixes(asked) != (insn.has_lock_prefix, insn.has_rep_prefix, insn.has_repne_prefix):
        return "assembled with other prefixes"
    operands = asked.operands
    if not operands and name in _STRINGS:
        return None
    if name == "imul" and len(operands) == 2 and isinstance(operands[1], Imm):
        operands = (operands[0], operands[0], operands[1])
    if len(operands) != insn.op_count:
        return f"assembled with {insn.op_count} operands"
    first = _all_operands(operands, asked, insn, labels)
    if first is not None and name in _COMMUTE and _all_operands(operands[::-1], asked, insn, labels) is None:
        return None
    return first


def _prefixes(asked: Statement) -> tuple[bool, bool, bool]:
    words = asked.prefixes
    return "lock" in words, bool({"rep", "repe", "repz"} & set(words)), bool({"repne", "repnz"} & set(words))


def _all_operands(
    operands: tuple[Operand, ...], asked: Statement, insn: Instruction, labels: Mapping[str, int]
) -> str | None:
    for place, operand in enumerate(operands):
        reason = _operand(operand, place, asked, insn, labels)
        if reason is not None:
            return reason
    return None


def _operand(
    operand: Operand, place: int, asked: Statement, insn: Instruction, labels: Mapping[str, int]
) -> str | None:
    kind = insn.op_kind(place)
    match operand:
        case Reg(name):
            if kind != _REGISTER or _NAMES[insn.op_register(place)] != name:
                return f"operand {place + 1} is not {name}"
        case Imm(value):
            return _number(value, place, kind, insn)
        case LabelRef(name):
            if kind not in _BRANCHES or insn.near_branch64 != labels[name]:
                return f"does not lead to {name}"
        case Mem():
            if kind != _MEMORY:
                return f"operand {place + 1} is not in memory"
            return _memory(operand, asked, insn, labels)
    return None


def _number(value: int, place: int, kind: int, insn: Instruction) -> str | None:
    if kind in _BRANCHES:
        return None if insn.near_branch64 == value & _MASK64 else f"leads to {insn.near_branch64:#x}, not {value:#x}"
    bits = _IMMEDIATE_BITS.get(kind)
    if bits is None:
        return f"operand {place + 1} is not a number"
    if not -(1 << bits - 1) <= value < 1 << bits:
        return f"{value:#x} does not fit the {bits // 8}-byte operand"
    mask = (1 << bits) - 1
    return None if insn.immediate(place) & mask == value & mask else f"holds {insn.immediate(place):#x}, not {value:#x}"


def _memory(asked: Mem, statement: Statement, insn: Instruction, labels: Mapping[str, int]) -> str | None:
    name = mnemonic_name(insn)
    if asked.size:
        size = MemorySizeExt.size(insn.memory_size)
        if size != asked.size and name not in _SIZELESS:
            return f"accesses {size} bytes, not {asked.size}"
    elif name not in _SIZELESS and (
        name in _SIZE_NOT_IMPLIED or not any(isinstance(o, Reg) for o in statement.operands)
    ):
        return "does not say how many bytes it accesses"
    if _NAMES[insn.segment_prefix] != asked.segment:
        return "uses another segment"
    if insn.is_ip_rel_memory_operand:
        return _relative(asked, insn, labels)
    base, index, scale = _NAMES[insn.memory_base], _NAMES[insn.memory_index], insn.memory_index_scale
    if _address(base, index, scale) != _address(asked.base, asked.index, asked.scale):
        return "addresses through other registers"
    if insn.memory_displacement != asked.disp & _MASK64:
        return f"has displacement {insn.memory_displacement:#x}, not {asked.disp:#x}"
    return None


def _relative(asked: Mem, insn: Instruction, labels: Mapping[str, int]) -> str | None:
    if asked.label:
        want = labels[asked.label]
    elif asked.base == "rip" and not asked.index:
        want = insn.next_ip + asked.disp
    elif not asked.base and not asked.index:
        want = asked.disp  # an absolute address
    else:
        return "addresses through other registers"
    have = insn.ip_rel_memory_address
    return None if have == want & _MASK64 else f"addresses {have:#x}, not {want & _MASK64:#x}"


def _address(base: str, index: str, scale: int) -> tuple[frozenset[str] | tuple[str, str], int]:
    # With scale 1 the two registers may stand in either order.
    if scale == 1 or not index:
        return frozenset({base, index} - {_NONE}) if base != index else (base, index), 1
    return (base, index), scale
