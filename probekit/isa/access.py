"""Tell what an instruction did to memory, from the registers after it.

A data watchpoint of an emulator stops after the access, so the instruction
has run and some registers have changed. Addresses are worked out backwards:

    mov [rdx], eax       rdx                             4 bytes written, their value is eax
    push rax             rsp                             (RSP has gone down by 8)
    rep movsb            rdi - 1 written, rsi - 1 read   one element: RDI and RSI have moved on
    mov rax, [rax]       unknown                         the loaded value has replaced the address

Source: Intel SDM vol. 2 (string instructions, REP prefixes), vol. 1 section 3.7 (operand addressing).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from iced_x86 import (
    Code,
    Decoder,
    Instruction,
    InstructionInfoFactory,
    MemorySizeExt,
    Mnemonic,
    OpAccess,
    OpKind,
    Register,
    RegisterExt,
    UsedMemory,
)

from probekit.records import record

__all__ = ("MemoryAccess", "accesses_after", "string_element")

_MASK: Final = (1 << 64) - 1
_DIRECTION: Final = 1 << 10
_REPEATS: Final = (0xF2, 0xF3)
_LEGACY: Final = frozenset((0xF2, 0xF3, 0xF0, 0x66, 0x67, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65))
_READS: Final = frozenset((OpAccess.READ, OpAccess.COND_READ, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE))
_WRITES: Final = frozenset((OpAccess.WRITE, OpAccess.COND_WRITE, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE))
_STORES: Final = frozenset((Mnemonic.MOV, Mnemonic.MOVNTI))
_STOS: Final = frozenset((Code.STOSB_M8_AL, Code.STOSW_M16_AX, Code.STOSD_M32_EAX, Code.STOSQ_M64_RAX))
_IMMEDIATES: Final = frozenset(
    (OpKind.IMMEDIATE8, OpKind.IMMEDIATE16, OpKind.IMMEDIATE32, OpKind.IMMEDIATE8TO64, OpKind.IMMEDIATE32TO64)
)
_HIGH_BYTES: Final = frozenset((Register.AH, Register.BH, Register.CH, Register.DH))
_NAMES: Final = {value: name.lower() for name, value in vars(Register).items() if isinstance(value, int)}
_BASES: Final = {Register.FS: "fs_base", Register.GS: "gs_base"}


@record
class MemoryAccess:
    """One access to memory."""

    addr: int | None
    """The address of its first byte; None when the registers no longer show it."""
    size: int
    """Bytes; 0 when unknown."""
    read: bool
    """Whether memory was read."""
    write: bool
    """Whether memory was written."""
    value: bytes | None = None
    """The bytes that were stored, where registers or the instruction still have them."""


def string_element(raw: bytes) -> bytes | None:
    """Return a string instruction without its REP prefix: what the CPU does for one element. None for any other.

    ``f3 48 ab`` (rep stosq) gives ``48 ab``.
    """
    insn = Decoder(64, raw[:15]).decode()
    if insn.code == Code.INVALID or not insn.is_string_instruction:
        return None
    end = next(i for i, byte in enumerate(raw) if byte not in _LEGACY)
    prefixes = bytes(byte for byte in raw[:end] if byte not in _REPEATS)
    return None if len(prefixes) == end else prefixes + raw[end : insn.len]


def accesses_after(raw: bytes, addr: int, regs: Mapping[str, int]) -> tuple[MemoryAccess, ...]:
    """Return the accesses of the instruction ``raw`` at ``addr``, which has just been executed.

    Of an instruction with REP these are the accesses of its last element. ``regs``: the registers after it by name,
    segment bases as ``fs_base`` and ``gs_base``. Empty when it touches no memory or the bytes are no instruction.
    """
    insn = Decoder(64, string_element(raw) or raw[:15], ip=addr).decode()
    if insn.code == Code.INVALID:
        return ()
    info = InstructionInfoFactory().info(insn)
    written = frozenset(
        RegisterExt.full_register(used.register) for used in info.used_registers() if used.access in _WRITES
    )
    return tuple(
        _access(insn, memory, written, regs)
        for memory in info.used_memory()
        if memory.access in _READS or memory.access in _WRITES
    )


def _access(insn: Instruction, memory: UsedMemory, written: frozenset[int], regs: Mapping[str, int]) -> MemoryAccess:
    write = memory.access in _WRITES
    return MemoryAccess(
        addr=_address(insn, memory, written, regs),
        size=MemorySizeExt.size(memory.memory_size),
        read=memory.access in _READS,
        write=write,
        value=_stored_bytes(insn, regs) if write else None,
    )


def _address(insn: Instruction, memory: UsedMemory, written: frozenset[int], regs: Mapping[str, int]) -> int | None:
    total = memory.displacement
    for register, scale in ((memory.base, 1), (memory.index, memory.scale)):
        if not register:  # Register.NONE
            continue
        value = _value_before(insn, register, written, memory, regs)
        if value is None:
            return None
        total += value * scale
    if RegisterExt.size(memory.base) == 4 or RegisterExt.size(memory.index) == 4:
        total &= 0xFFFFFFFF  # address-size prefix
    base = _BASES.get(memory.segment)
    if base is not None:
        if base not in regs:
            return None
        total += regs[base]
    return total & _MASK


def _value_before(
    insn: Instruction, register: Any, written: frozenset[int], memory: UsedMemory, regs: Mapping[str, int]
) -> int | None:
    """Return what ``register`` held when the address was computed; None when that is lost."""
    full = RegisterExt.full_register(register)
    name = _NAMES[full]
    if name == "rip":
        return 0  # iced's displacement is the address itself
    if name not in regs:
        return None
    value = regs[name]
    if full in written:
        if insn.is_string_instruction and full in (Register.RSI, Register.RDI):
            size = MemorySizeExt.size(memory.memory_size)
            value += size if regs["eflags"] & _DIRECTION else -size
        elif name == "rsp" and insn.is_stack_instruction and insn.op0_register != register:  # not pop rsp
            value -= insn.stack_pointer_increment
        else:
            return None
    bits = 8 * RegisterExt.size(register)
    return value & ((1 << bits) - 1)


def _stored_bytes(insn: Instruction, regs: Mapping[str, int]) -> bytes | None:
    if insn.code in _STOS:
        return _bytes_of(regs["rax"], MemorySizeExt.size(insn.memory_size))
    if insn.mnemonic not in _STORES or insn.op0_kind != OpKind.MEMORY:
        return None
    size = MemorySizeExt.size(insn.memory_size)
    if insn.op1_kind in _IMMEDIATES:
        return _bytes_of(insn.immediate(1), size)
    name = _NAMES.get(RegisterExt.full_register(insn.op1_register), "")
    if name not in regs or not RegisterExt.is_gpr(insn.op1_register):
        return None
    return _bytes_of(regs[name] >> (8 if insn.op1_register in _HIGH_BYTES else 0), size)


def _bytes_of(value: int, size: int) -> bytes:
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
