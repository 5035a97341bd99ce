"""A REP string instruction's slot does what the instruction does, element by element, whatever comes between."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.isa.assemble import assemble
from probekit.isa.relocate import RelocateError
from probekit.patch.sites import EntrySite, InsnSite
from probekit.patch.step_slot import STEP_SLOT_SIZE, repeat_slot, step_slot

pytest.importorskip("unicorn")
from unicorn import UC_ARCH_X86, UC_HOOK_MEM_UNMAPPED, UC_MODE_64, Uc
from unicorn import x86_const as x86

CODE, SLOT, DATA, SIZE = 0x10000, 0x18000, 0x20000, 0x3000
REPEATED = (
    "rep movsb|rep movsw|rep movsq|rep stosb|rep stosw|rep stosd|rep stosq|rep lodsb|rep lodsq|"
    "repe cmpsb|repe cmpsw|repne cmpsb|repne cmpsq|repe scasb|repe scasd|repne scasb|repne scasq"
).split("|")
REGS = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in "rax rcx rdx rsi rdi rsp eflags rip".split()}
FLAGS = 0x8D5  # the arithmetic ones


def _run(
    code: bytes, at: int, end: int, regs: dict[str, int], data: bytes, *, holes: bool = False
) -> tuple[object, ...]:
    """Registers and memory when ``end`` is reached. ``holes``: pages appear only when they are touched."""
    machine = Uc(UC_ARCH_X86, UC_MODE_64)
    machine.mem_map(CODE, 0x10000)
    machine.mem_write(at, code)
    pages = range(DATA, DATA + SIZE, 0x1000)

    def fault(uc: Uc, _kind: int, addr: int, size: int, _value: int, _data: object) -> bool:
        for page in {addr & ~0xFFF, addr + size - 1 & ~0xFFF}:
            if page in pages and page not in mapped:
                show(page)
        return True

    mapped: set[int] = set()

    def show(page: int) -> None:
        machine.mem_map(page, 0x1000)
        machine.mem_write(page, data[page - DATA : page - DATA + 0x1000])
        mapped.add(page)

    for page in () if holes else pages:
        show(page)
    machine.hook_add(UC_HOOK_MEM_UNMAPPED, fault)
    for name, value in regs.items():
        machine.reg_write(REGS[name], value)
    machine.emu_start(at, end, count=20_000)
    assert machine.reg_read(REGS["rip"]) == end
    memory = b"".join(bytes(machine.mem_read(p, 0x1000)) if p in mapped else data[p - DATA :][:0x1000] for p in pages)
    return (
        {name: machine.reg_read(number) for name, number in REGS.items() if name not in ("eflags", "rip")},
        machine.reg_read(REGS["eflags"]) & FLAGS,
        memory,
    )


@settings(max_examples=40)
@given(
    text=st.sampled_from(REPEATED),
    count=st.integers(0, 40),
    start=st.integers(0, 24),
    down=st.booleans(),
    alike=st.integers(0, 40),
    holes=st.booleans(),
    zero=st.booleans(),
)
def test_as_the_instruction(text: str, count: int, start: int, down: bool, alike: int, holes: bool, zero: bool) -> None:
    """Both over a page boundary, in both directions, with a difference somewhere, with pages that are not there yet."""
    insn = assemble(text, CODE)
    slot = repeat_slot(insn, CODE, SLOT)
    assert slot is not None and len(slot) <= STEP_SLOT_SIZE
    data = bytearray((n // 8 * 7 + n % 3) & 0xFF for n in range(SIZE))
    source, target = 0x1000 - start, 0x2000 - start // 2
    step = -8 if down else 8
    for n in range(alike):
        for at in (source + step * n, target + step * n):
            data[at : at + 8] = b"\x55" * 8
    regs = {
        "rax": 0x5555555555555555,
        "rcx": count,
        "rdx": 7,
        "rsi": DATA + source,
        "rdi": DATA + target,
        "rsp": CODE + 0x4000,
        "eflags": 0x2 | (0x400 if down else 0) | (0x40 if zero else 0x801),
    }
    end = CODE + len(insn)
    assert _run(slot, SLOT, end, regs, bytes(data), holes=holes) == _run(insn, CODE, end, regs, bytes(data))


def test_the_bytes() -> None:
    # rep movsb at 0x10000, slot at 0x18000
    assert repeat_slot(bytes.fromhex("f3a4"), CODE, SLOT) == bytes.fromhex("e309 a4 9090 488d49ff ebf5 e9 f27fffff")
    # repe cmpsb; repne scasq
    assert repeat_slot(bytes.fromhex("f3a6"), CODE, SLOT) == bytes.fromhex(
        "e30b a6 9090 488d49ff 7502 ebf3 e9 f07fffff"
    )
    assert repeat_slot(bytes.fromhex("f248af"), CODE, SLOT) == bytes.fromhex(
        "e30c 48af 9090 488d49ff 7402 ebf2 e9 f07fffff"
    )


@pytest.mark.parametrize("code", ["a4", "c3", "f3c3", "f390", "0f1f440000", "f30f1e fa"])
def test_no_other_instruction_is_taken_apart(code: str) -> None:
    assert repeat_slot(bytes.fromhex(code), CODE, SLOT) is None


def test_what_counts_in_ecx_is_refused() -> None:
    with pytest.raises(RelocateError, match="ECX"):
        repeat_slot(bytes.fromhex("67f3a4"), CODE, SLOT)


def test_a_breakpoint_covers_one_instruction() -> None:
    """An instruction site may hold several, for a jump; only the first is stepped over."""
    two = InsnSite(CODE, bytes.fromhex("4154 488b07"), CODE, False)  # push r12; mov rax, [rdi]
    assert step_slot(two, SLOT)[:4] == bytes.fromhex("4154 9090")
    rep = InsnSite(CODE, bytes.fromhex("f3a4 90 90 90"), CODE, False)
    assert step_slot(rep, SLOT) == repeat_slot(bytes.fromhex("f3a4"), CODE, SLOT)
    pad = EntrySite(CODE, bytes.fromhex("0f1f440000"), CODE)
    assert step_slot(pad, SLOT)[:7] == bytes.fromhex("0f1f440000 9090")
