"""Instructions of a live kernel, each executed where it is and as a copy in its slot: nobody can tell the difference.

A sample of every form that the kernel's text has (operation, operands, prefixes,
length), and as many again by chance, with registers and memory by chance.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from iced_x86 import Code, Decoder, Instruction, InstructionInfoFactory, OpKind, Register

from probekit.isa.relocate import RelocateError
from probekit.patch.detours import copied_slot
from probekit.patch.sites import InsnSite
from probekit.session.attach import attach
from tests.guest_fixtures import KERNELS
from tests.support.steps import REGISTERS, SCRATCH, SCRATCH_SIZE, SLOT, STACK_TOP, State, Stepper
from vm.guest import Guest

pytestmark = pytest.mark.guest

# The matrix shares them: most forms are in both kernels, and which instructions stand for a form is chance.
OF_EACH_FORM = 8 // len(KERNELS)
BY_CHANCE = 8_000 // len(KERNELS)
COMPARED_AT_LEAST = 20_000 // len(KERNELS)

# What unicorn's processor has no stable answer for, or what would change the machine itself.
_LEFT_OUT = frozenset(
    "rdtsc rdtscp rdrand rdseed rdpmc wrmsr rdmsr lgdt lidt lldt ltr xsetbv in out insb insd insw outsb outsd outsw "
    "cpuid clts lmsw invd wbinvd invlpg monitor pause clac stac xsave xrstor xsavec xsaves xrstors fxsave fxsave64 "
    "fxrstor fxrstor64 rdpid sysexit verw invpcid popfq popf".split()
)
_CONTROL = frozenset(range(Register.CR0, Register.CR15 + 1)) | frozenset(range(Register.DR0, Register.DR15 + 1))
_SEGMENTS = frozenset((Register.ES, Register.CS, Register.SS, Register.DS, Register.FS, Register.GS))
_VECTORS = range(Register.XMM0, Register.ZMM31 + 1)
_NAMES = {getattr(Register, name.upper()): name for name in REGISTERS}
_INFO = InstructionInfoFactory()
_MASK = (1 << 64) - 1


def _forms(functions: list[tuple[int, bytes]], chance: random.Random) -> list[tuple[int, bytes]]:
    """The sample: ``(address, bytes)``."""
    seen: Counter[tuple[int, ...]] = Counter()
    kept: list[tuple[int, bytes]] = []
    rest: list[tuple[int, bytes]] = []
    often: Counter[bytes] = Counter()
    chance.shuffle(functions)
    for start, code in functions:
        for insn in Decoder(64, code, ip=start):
            if insn.code == Code.INVALID:
                break
            at = insn.ip - start
            place = (insn.ip, code[at : at + insn.len])
            often[place[1]] += 1
            if often[place[1]] > OF_EACH_FORM:  # its form has been seen as often
                if chance.random() < 0.02:
                    rest.append(place)
                continue
            form = _form(insn)
            if seen[form] < OF_EACH_FORM:
                seen[form] += 1
                kept.append(place)
            elif chance.random() < 0.02:
                rest.append(place)
    return kept + chance.sample(rest, min(BY_CHANCE, len(rest)))


def _form(insn: Instruction) -> tuple[int, ...]:
    prefixes = insn.has_lock_prefix | insn.has_rep_prefix << 1 | insn.has_repne_prefix << 2
    memory = (insn.memory_base != Register.NONE) | (insn.memory_index != Register.NONE) << 1 | insn.segment_prefix << 2
    base = insn.memory_base in (Register.RSP, Register.RIP)
    return (insn.code, insn.len, prefixes, memory, base, insn.memory_displ_size, insn.is_ip_rel_memory_operand)


def _wanted(insn: Instruction, name: str) -> bool:
    if name in _LEFT_OUT:
        return False
    registers = [insn.op_register(n) for n in range(insn.op_count) if insn.op_kind(n) == OpKind.REGISTER]
    return not any(register in _CONTROL or register in _SEGMENTS for register in registers)


def _states(insn: Instruction, chance: random.Random) -> Iterator[State]:
    """Registers by chance, but such that memory operands are likely to be mapped; vectors only where they are used."""
    vectors = 16 if any(used.register in _VECTORS for used in _INFO.info(insn).used_registers()) else 0
    for _ in range(2):
        regs = {name: chance.choice((0, 1, 7, 1 << 63, chance.getrandbits(64))) for name in REGISTERS}
        regs["rsp"] = STACK_TOP - chance.randrange(0, 64, 8)
        for name in ("rsi", "rdi"):
            regs[name] = SCRATCH + SCRATCH_SIZE // 2 + chance.randrange(0, 4096)
        regs["rcx"] = chance.randrange(0, 40)
        index, base = _NAMES.get(insn.memory_index), _NAMES.get(insn.memory_base)
        if index is not None:
            regs[index] = chance.randrange(0, 16)
        if base is not None and base != "rsp":
            aim = SCRATCH + SCRATCH_SIZE // 2 + chance.randrange(0, 4096, 16)
            displacement = insn.memory_displacement
            far = not -0x8000 < ((displacement + (1 << 63)) & _MASK) - (1 << 63) < 0x8000
            regs[base] = (aim - displacement) & _MASK if far else aim
        flags = chance.choice((0, 0x8D5, chance.getrandbits(12) & 0x8D5))
        yield State(regs, flags, tuple(chance.getrandbits(128) for _ in range(vectors)))


def test_copies_do_what_the_originals_do(guest: Guest, homes: object) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with attach(guest.gdb) as attachment:
        kernel = attachment.kernel
        places = [(f.addr, f.size) for f in attachment.functions if f.module == "vmlinux"]
        text = attachment.read_code([(kernel.text.start, kernel.text.end - kernel.text.start)])[0]
        codes = attachment.read_code(places)
        start, end = kernel.text.start, kernel.image.end
    assert text is not None
    functions = [(addr, code) for (addr, _), code in zip(places, codes, strict=True) if code]
    machine = Stepper(start, text, end)
    outcomes: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for addr, raw in _forms(functions, chance):
        insn = Decoder(64, raw, ip=addr).decode()
        name = str(insn).split()[0]
        if not start <= addr < start + len(text) or not _wanted(insn, name):
            outcomes["left out"] += 1
            continue
        try:
            slot = copied_slot(InsnSite(addr, raw, addr, True), SLOT)
        except RelocateError as error:
            refused[error.reason] += 1
            continue
        machine.put_slot(slot)
        for state in _states(insn, chance):
            original, copy = machine.run(addr, len(raw), state), machine.run(SLOT, len(slot), state)
            if (original.fault == 0) != (copy.fault == 0):
                # unicorn now and then reports a fault in memory that is mapped, after a hundred thousand runs of one
                # machine: a new one decides.
                machine = Stepper(start, text, end)
                machine.put_slot(slot)
                original, copy = machine.run(addr, len(raw), state), machine.run(SLOT, len(slot), state)
                outcomes["decided by a new machine"] += 1
            what = (f"seed {seed}", hex(addr), str(insn), raw.hex(" "), slot.hex(" "), state)
            if original.fault or copy.fault:
                # A fault leaves everything as it was; where it is said to be differs, as the instructions do. (The copy
                # of a call has pushed its return address by then: no fault in a call goes on in the kernel.)
                assert original.fault == copy.fault, what
                assert insn.is_call_near_indirect or (original.regs, original.xmm) == (copy.regs, copy.xmm), what
                outcomes["both fault"] += 1
            else:
                assert original == copy, what
                outcomes["same"] += 1
    print(outcomes, refused.most_common())
    assert outcomes["same"] > COMPARED_AT_LEAST
    assert outcomes["decided by a new machine"] < 20
    assert sum(refused.values()) > 100
