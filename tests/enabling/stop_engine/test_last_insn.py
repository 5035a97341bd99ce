"""The instruction before RIP: decoded from the function's start, and what is tried where that does not do."""

from __future__ import annotations

from probekit.enabling.stop_engine.last_insn import LastInstruction
from probekit.isa.access import MemoryAccess
from probekit.target.api import Regs

START = 0xFFFFFFFF81000000
WATCHED = 0xFFFF888000001000
# mov qword ptr [rdi], rsi; nop; rep stosq; mov rax, qword ptr [rax]; ret
CODE = bytes.fromhex("488937 90 f348ab 488b00 c3".replace(" ", "")) + b"\xcc" * 16


class Text:
    """Code at START; ``reads``: every read."""

    def __init__(self, code: bytes = CODE) -> None:
        self.code = bytearray(code)
        self.reads: list[tuple[int, int]] = []

    def __call__(self, addr: int, size: int) -> bytes | None:
        self.reads.append((addr, size))
        at = addr - START
        return bytes(self.code[at : at + size]) if at >= 0 and at + size <= len(self.code) else None


def regs(offset: int, **more: int) -> Regs:
    zeros = dict.fromkeys("rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 eflags".split(), 0)
    return Regs({**zeros, "fs_base": 0, "gs_base": 0, "cs": 0x10, "rip": START + offset, **more}, b"")


def fits(access: MemoryAccess) -> bool:
    assert access.addr is not None
    return access.addr <= WATCHED < access.addr + access.size


def finder(text: Text, *, known: bool = True) -> LastInstruction:
    return LastInstruction(text, lambda addr: START if known and START <= addr < START + len(text.code) else None)


def test_the_instruction_that_ends_at_rip() -> None:
    found = finder(Text()).find(regs(3, rdi=WATCHED, rsi=7), fits)
    assert found is not None and found.pc == START
    (access,) = found.accesses
    assert (access.addr, access.size, access.write) == (WATCHED, 8, True)


def test_an_emulator_stands_on_a_rep_between_its_elements() -> None:
    found = finder(Text()).find(regs(4, rdi=WATCHED + 8, rcx=3), fits)
    assert found is not None and found.pc == START + 4 and found.accesses[0].addr == WATCHED


def test_one_whose_address_nobody_can_tell_is_better_than_a_guess() -> None:
    found = finder(Text()).find(regs(10, rax=0x1234), fits)
    assert found is not None and found.pc == START + 7 and found.accesses[0].addr is None


def test_without_a_function_any_bytes_that_fit_are_taken() -> None:
    found = finder(Text(), known=False).find(regs(3, rdi=WATCHED), fits)
    assert found is not None and found.pc in (START, START + 1) and found.accesses[0].addr == WATCHED


def test_nothing_fits() -> None:
    assert finder(Text()).find(regs(3, rdi=0x5000), fits) is None
    assert finder(Text(b"")).find(regs(3, rdi=WATCHED), fits) is None


def test_a_function_is_decoded_once_while_its_bytes_stay() -> None:
    text = Text()
    last = finder(text)
    last.find(regs(3, rdi=WATCHED), fits)
    text.reads.clear()
    last.find(regs(3, rdi=WATCHED), fits)
    assert text.reads == [(START, 3)]
    text.code[0:3] = bytes.fromhex("488916")  # mov qword ptr [rsi], rdx
    found = last.find(regs(3, rsi=WATCHED), fits)
    assert found is not None and found.accesses[0].addr == WATCHED
