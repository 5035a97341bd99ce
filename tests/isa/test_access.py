"""What an instruction has touched, worked out behind it: against the emulator's own account of its accesses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.isa.access import MemoryAccess, accesses_after, string_element
from probekit.isa.assemble import assemble

unicorn = pytest.importorskip("unicorn")
from unicorn import UC_ARCH_X86, UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE, UC_MEM_WRITE, UC_MODE_64, Uc  # noqa: E402
from unicorn import x86_const as x86  # noqa: E402

CODE, DATA, STACK, SIZE = 0x10000, 0x20000, 0x30000, 0x8000
GENERAL = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split()
NUMBERS = {
    name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in (*GENERAL, "rip", "eflags", "fs_base", "gs_base")
}

# The address of each is known behind the instruction.
KNOWN = """
mov dword ptr [rdx], eax
mov byte ptr [rdx + 1], ah
mov word ptr [rdx + rcx*2 + 6], cx
mov qword ptr [rdx], -5
mov byte ptr [r8 + 3], 7
mov rax, qword ptr [rdx + rcx*8 + 0x10]
movzx eax, word ptr [rdx]
movsxd rax, dword ptr [rdx]
cmp dword ptr [rdx], 5
test byte ptr [rdx], 1
inc dword ptr [rdx]
add qword ptr [rdx + 8], rax
lock inc dword ptr [rdx]
lock xadd dword ptr [rdx], eax
xchg dword ptr [rdx], eax
lock cmpxchg qword ptr [rdx], rcx
bts dword ptr [rdx], 3
setne byte ptr [rdx]
push rax
push qword ptr [rdx]
pop rbx
pop qword ptr [rdx]
movsb
movsq
stosb
stosd
lodsw
scasb
cmpsd
rep movsb
rep movsq
rep stosb
rep stosq
repe cmpsb
repne scasb
mov rax, qword ptr gs:[0x28]
mov dword ptr gs:[rcx + 1], eax
mov eax, dword ptr [rip + 0x10100]
movnti qword ptr [rdx], rax
cmovne rbx, qword ptr [rdx]
""".strip().splitlines()
LOST = ("mov rdx, qword ptr [rdx]", "mov ecx, dword ptr [rdx + rcx*4]", "movzx edx, byte ptr [rdx]", "pop rsp")


def _run(code: bytes, *, down: bool = False) -> tuple[dict[str, int], list[tuple[bool, int, int]]]:
    """Registers behind one instruction (one element of a REP), and ``(is a write, address, size)`` of each access."""
    machine = Uc(UC_ARCH_X86, UC_MODE_64)
    for base in (CODE, DATA, STACK):
        machine.mem_map(base, SIZE)
    machine.mem_write(CODE, code)
    machine.mem_write(DATA, bytes(range(1, 201)) * 20)
    values = {name: 0x11 * (n + 1) for n, name in enumerate(GENERAL)}
    values |= {"rdx": DATA + 0x100, "rcx": 3, "rsi": DATA + 0x200, "rdi": DATA + 0x300, "r8": DATA + 0x400}
    values |= {"rsp": STACK + 0x800, "eflags": 0x402 if down else 2, "rax": 0x1122334455667788}
    seen: list[tuple[bool, int, int]] = []

    def note(_uc: object, kind: int, addr: int, size: int, _value: int, _data: object) -> None:
        seen.append((kind == UC_MEM_WRITE, addr, size))

    for name, value in values.items():
        machine.reg_write(NUMBERS[name], value)
    machine.reg_write(NUMBERS["gs_base"], DATA + 0x1000)
    machine.hook_add(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, note)
    machine.emu_start(CODE, CODE + len(code) if string_element(code) is None else -1, count=1)
    return {name: machine.reg_read(number) for name, number in NUMBERS.items()}, seen


def _flat(found: tuple[MemoryAccess, ...]) -> set[tuple[bool, int | None, int]]:
    return {(write, a.addr, a.size) for a in found for write, yes in ((True, a.write), (False, a.read)) if yes}


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("text", KNOWN)
def test_as_the_emulator_saw_it(text: str, down: bool) -> None:
    code = assemble(text, CODE)
    regs, seen = _run(code, down=down)
    assert seen, text
    assert _flat(accesses_after(code, CODE, regs)) >= set(seen)


@pytest.mark.parametrize("text", KNOWN)
def test_a_stored_value_is_what_memory_holds(text: str) -> None:
    code = assemble(text, CODE)
    regs, _ = _run(code)
    for access in accesses_after(code, CODE, regs):
        if access.value is not None:
            assert text.startswith(("mov ", "movnti", "stos", "rep stos")), text
            assert len(access.value) == access.size


@pytest.mark.parametrize("text", LOST)
def test_an_address_that_was_overwritten_is_not_guessed(text: str) -> None:
    code = assemble(text, CODE)
    regs, seen = _run(code)
    found = accesses_after(code, CODE, regs)
    assert [(a.size, a.read) for a in found] == [(size, not write) for write, _, size in seen]
    assert [a.addr for a in found] == [None]


@pytest.mark.parametrize("text", ["nop", "lea rax, [rdx + 8]", "add rax, rcx", "jmp rax", "mov eax, 5"])
def test_no_access(text: str) -> None:
    assert accesses_after(assemble(text, CODE), CODE, dict.fromkeys(NUMBERS, 0)) == ()


@pytest.mark.parametrize(
    ("code", "element"),
    [
        ("f3a4", "a4"),  # rep movsb
        ("f348ab", "48ab"),  # rep stosq
        ("66f3ab", "66ab"),  # rep stosw
        ("f2ae", "ae"),  # repne scasb
        ("f36548a5", "6548a5"),  # rep movsq gs
        ("a4", None),  # movsb
        ("f30f1007", None),  # movss xmm0, [rdi]
        ("f3c3", None),  # rep ret
        ("f390", None),  # pause
        ("0f", None),
        ("", None),
    ],
)
def test_the_element_of_a_repeated_string(code: str, element: str | None) -> None:
    assert string_element(bytes.fromhex(code)) == (bytes.fromhex(element) if element is not None else None)


@given(st.binary(max_size=20), st.dictionaries(st.sampled_from(list(NUMBERS)), st.integers(0, (1 << 64) - 1)))
def test_any_bytes_are_taken(code: bytes, regs: dict[str, int]) -> None:
    regs = dict.fromkeys(NUMBERS, 0) | regs
    for access in accesses_after(code, CODE, regs):
        assert access.addr is None or 0 <= access.addr < 1 << 64
        assert access.value is None or len(access.value) == access.size
