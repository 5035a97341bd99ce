"""The kernel of the emulated guest: where its functions, tasks and memory are, and its functions in assembly.

Each function spoils every register that a C function may spoil, and refuses a stack that C code would not accept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probekit.guest.offsets import KernelServices, PathOffsets, RunTime, TaskOffsets
from probekit.isa.assemble import assemble
from probekit.kernel.syscalls import CALL_NUMBER, SyscallEntry
from tests.support.emulator import TEXT

CODE = 0xFFFFFFFFC0000000
CODE_SIZE = 0x80000
DATA = 0xFFFF888004000000
STACK = 0xFFFFC90000000000
STACK_SIZE = 0x8000
STACK_TOP = STACK + STACK_SIZE - 0x1000
GS_BASE = 0xFFFF88807F000000
TASK = 0xFFFF888001234000
PAGE = 0x1000

G = TEXT + 0x8000  # another function, where tail jumps go
RETURN_THUNK = TEXT + 0x8100
CLOCK = TEXT + 0x8200
WALL = TEXT + 0x8300
LOADS = {size: TEXT + 0x8400 + 0x100 * n for n, size in enumerate((1, 2, 4, 8))}
USER_COPY = TEXT + 0x8800
USER_TEXT = TEXT + 0x8900
UNWIND = TEXT + 0x8A00
TO_USER = TEXT + 0x8C00
USER_OKAY = TEXT + 0x8D00
PANIC = TEXT + 0x8E00
SEND_SIGNAL = TEXT + 0x8F00
DONE = TEXT + 0x9000  # where the outermost return goes

TIME = 0x1122334455667788
OFFSETS = TaskOffsets(
    current=0x1FB80,
    cpu=0x1FB90,
    pid=0x560,
    tgid=0x564,
    comm=0x720,
    parent=0x570,
    start=0x580,
    cred=0x710,
    uid=0x8,
    gid=0xC,
    status=0x10,
)
PATHS = PathOffsets(
    fs=0x610,
    memory=0x618,
    cwd=0x28,
    root=0x18,
    path_mount=0,
    path_dentry=8,
    mount=0x20,
    mount_root=0,
    mount_parent=-0x10,
    mountpoint=-0x8,
    parent=0x18,
    name=0x28,
    name_size=0x24,
    hashed=0x10,
    arg_start=0x130,
    arg_end=0x138,
)
SIGNAL = TASK + PAGE + 0x800
"""Where the machine's kernel keeps the signal that was sent last."""

PREEMPT_COUNT = 0x1FBA0
STACK_TOP_WORD = 0x1FBD8
"""Where a CPU keeps the end of its task's stack, from the GS base."""
SAVED_NUMBER = TASK + PAGE + 0x400
"""Where the saved number of the task's system call is."""
SYSCALLS = SyscallEntry(((DONE, DONE + 1),), STACK_TOP_WORD)
"""Every function of the machine is called from the kernel's entry."""
CRED = TASK + 0x800
PARENT = TASK + PAGE
KMEM = 0xFFFF888005000000
KMEM_SIZE = 2 * PAGE
USER = 0x400000
USER_SIZE = PAGE
WALL_TIME = 0x2233445566778899
RUN = RunTime(
    total=0x600,
    since=0x608,
    clock=0x1FBB0,
    task_clock=0x1FBB8,
    now=TEXT + 0x8B00,
    lock=0x1FBD0,
    interrupts=(0x1FBC0, 0x1FBC8),
)
RUN_WORDS = {"now": 5_000_900, "clock": 5_000_800, "task_clock": 4_000_700, "since": 4_000_000, "total": 300}
INTERRUPTS = (1_000_170, 1_000_100)
RUN_NS = 5_000_900 - (5_000_800 - 4_000_700) - (1_000_170 - 1_000_100) - 4_000_000 + 300

UID, GID, PPID = 1000, 0xFFFFFFFE, 3
SLOT = 0x2E0C0

IF = 0x200

KMEM_BYTES = bytes((7 * n + n // 256) & 0xFF for n in range(KMEM_SIZE - 64)).ljust(KMEM_SIZE, b"k")
"""What is in kernel memory; its last bytes are no NUL."""

_CLOCK = f"""
    lea rax, [rsp + 8]
    test rax, 0xf
    jz aligned
    ud2
aligned:
    mov rcx, 0x1111; mov rdx, rcx; mov rsi, rcx; mov rdi, rcx
    mov r8, rcx; mov r9, rcx; mov r10, rcx; mov r11, rcx
    mov rax, {TIME:#x}
    ret
"""


def _clobber() -> str:
    return "; ".join(f"mov {name}, 0x1111" for name in ("rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"))


def _load_function(size: int, ranges: Sequence[tuple[int, int]]) -> str:
    """``__get_user_nocheck_N`` where the exception table knows which addresses are mapped."""
    checks = "\n".join(
        f"""
        mov rcx, {start:#x}; mov rdx, rax; sub rdx, rcx; mov rcx, {length - size:#x}; cmp rdx, rcx; jbe good
        """
        for start, length in ranges
        if length >= size
    )
    load = {1: "movzx edx, byte ptr [rax]", 2: "movzx edx, word ptr [rax]", 4: "mov edx, dword ptr [rax]"}
    return f"""
        push rcx
        {checks}
        pop rcx
        mov rax, -14
        xor edx, edx
        ret
    good:
        pop rcx
        {load.get(size, "mov rdx, qword ptr [rax]")}
        xor eax, eax
        ret
    """


_ALIGNED = "lea rax, [rsp + 8]; test rax, 0xf; jz aligned; ud2; aligned:"

_USER_COPY = f"""
    {_ALIGNED}
    mov rcx, {USER:#x}; mov rax, rsi; sub rax, rcx; jb bad; cmp rax, {USER_SIZE:#x}; ja bad
    add rax, rdx; jb bad; cmp rax, {USER_SIZE:#x}; ja bad
next:
    test rdx, rdx
    jz done
    mov al, byte ptr [rsi]; mov byte ptr [rdi], al
    inc rsi; inc rdi; dec rdx
    jmp next
done:
    {_clobber()}
    xor eax, eax
    ret
bad:
    {_clobber()}
    mov rax, -14
    ret
"""

# strncpy_from_user_nofault: the bytes with the NUL, but for an empty string 0 or 1.
_USER_TEXT = f"""
    {_ALIGNED}
    xor r8d, r8d
next:
    cmp r8, rdx; jae cut
    mov rcx, {USER:#x}; mov rax, rsi; sub rax, rcx; jb bad; cmp rax, {USER_SIZE:#x}; jae bad
    mov al, byte ptr [rsi]; mov byte ptr [rdi], al
    inc rsi; inc rdi; inc r8
    test al, al
    jnz next
    mov rax, r8
    {{empty}}
    jmp out
cut:
    mov byte ptr [rdi - 1], 0
    mov rax, rdx
    jmp out
bad:
    mov rax, -14
out:
    {_clobber()}
    ret
"""

# copy_to_user_nofault: what is there already is changed where the task's memory is, and nothing where it is not.
_TO_USER = f"""
    {_ALIGNED}
    mov rcx, {USER:#x}; mov rax, rdi; sub rax, rcx; jb bad; cmp rax, {USER_SIZE:#x}; ja bad
    add rax, rdx; jb bad; cmp rax, {USER_SIZE:#x}; ja bad
next:
    test rdx, rdx
    jz done
    mov al, byte ptr [rsi]; mov byte ptr [rdi], al
    inc rsi; inc rdi; dec rdx
    jmp next
done:
    {_clobber()}
    xor eax, eax
    ret
bad:
    {_clobber()}
    mov rax, -14
    ret
"""

# bpf_send_signal: at once where interrupts are on, which it must never be here.
_SEND_SIGNAL = f"""
    {_ALIGNED}
    pushfq; pop rax; test eax, {IF:#x}; jz later; ud2
later:
    mov rax, -22
    cmp edi, 64; ja out
    mov rcx, {SIGNAL:#x}; mov dword ptr [rcx], edi
    xor eax, eax
out:
    {_clobber()}
    ret
"""

# stack_trace_save_regs(regs, store, size, skip): what it was given, so that a test can see it.
_UNWIND = f"""
    {_ALIGNED}
    mov r8, qword ptr [rdi + 152]
    mov rax, qword ptr [r8]; mov qword ptr [rsi], rax
    mov eax, 1
    cmp edx, 2; jb out
    mov rcx, qword ptr [rdi + 128]; mov qword ptr [rsi + 8], rcx
    mov eax, 2
    cmp edx, 3; jb out
    mov rcx, qword ptr [rdi + 32]; mov qword ptr [rsi + 16], rcx
    mov eax, 3
out:
    {_clobber()}
    ret
"""


def kernel_services() -> KernelServices:
    """Everything that the emulated kernel offers to probes."""
    return KernelServices(
        load=LOADS,
        user_copy=USER_COPY,
        user_text=USER_TEXT,
        to_user=TO_USER,
        user_okay=USER_OKAY,
        panic=PANIC,
        send_signal=SEND_SIGNAL,
        stack=UNWIND,
        wall=WALL,
        preempt_count=PREEMPT_COUNT,
        run_time=RUN,
        paths=PATHS,
        syscalls=SYSCALLS,
    )


def kernel_code(readable: Sequence[tuple[int, int]], *, user_okay: bool, empty_is_0: bool) -> dict[int, bytes]:
    """The kernel's functions by address. ``readable``: start and length of the memory that loads may read.

    ``empty_is_0``: what ``strncpy_from_user_nofault`` returns for an empty string is 0, not 1.
    """
    user_text = _USER_TEXT.format(empty="cmp rax, 1; jne out; xor eax, eax" if empty_is_0 else "")
    pieces = {G: assemble("mov rax, 0x77; ret", G), RETURN_THUNK: b"\xc3", CLOCK: assemble(_CLOCK, CLOCK)}
    pieces |= {WALL: assemble(_CLOCK.replace(hex(TIME), hex(WALL_TIME)), WALL)}
    pieces |= {at: assemble(_load_function(size, readable), at) for size, at in LOADS.items()}
    pieces |= {at: assemble(text, at) for at, text in ((USER_COPY, _USER_COPY), (USER_TEXT, user_text))}
    pieces |= {UNWIND: assemble(_UNWIND, UNWIND), TO_USER: assemble(_TO_USER, TO_USER), PANIC: b"\xf4"}  # hlt
    pieces |= {SEND_SIGNAL: assemble(_SEND_SIGNAL, SEND_SIGNAL)}
    pieces |= {USER_OKAY: assemble(_clobber() + f"; mov eax, {0x5A00 | user_okay:#x}; ret", USER_OKAY)}
    pieces |= {RUN.now: assemble(_CLOCK.replace(hex(TIME), hex(RUN_WORDS["now"])), RUN.now)}
    pieces |= {DONE: b"\xf4"}  # hlt: unicorn decodes ahead
    return pieces


def task_memory(
    *, gs_base: int, cpu: int, pid: int, tid: int, comm: bytes, start_time: int, preempt_count: int
) -> Iterable[tuple[int, bytes]]:
    """Address and bytes of what the kernel keeps of the running task, its parent and its CPU."""
    yield gs_base + OFFSETS.current, TASK.to_bytes(8, "little")
    yield gs_base + OFFSETS.cpu, cpu.to_bytes(4, "little")
    yield gs_base + STACK_TOP_WORD, (SAVED_NUMBER - CALL_NUMBER).to_bytes(8, "little")
    yield TASK + OFFSETS.pid, tid.to_bytes(4, "little", signed=True)
    yield TASK + OFFSETS.tgid, pid.to_bytes(4, "little", signed=True)
    yield TASK + OFFSETS.comm, comm.ljust(16, b"\0")[:16]
    for word, at in (("clock", gs_base + RUN.clock), ("task_clock", gs_base + RUN.task_clock)):
        yield at, RUN_WORDS[word].to_bytes(8, "little")
    for offset, value in zip(RUN.interrupts or (), INTERRUPTS, strict=True):
        yield gs_base + offset, value.to_bytes(8, "little")
    for word, at in (("since", TASK + RUN.since), ("total", TASK + RUN.total)):
        yield at, RUN_WORDS[word].to_bytes(8, "little")
    yield gs_base + PREEMPT_COUNT, preempt_count.to_bytes(4, "little")
    yield TASK + (OFFSETS.parent or 0), PARENT.to_bytes(8, "little")
    yield PARENT + (OFFSETS.parent or 0), PARENT.to_bytes(8, "little")
    yield PARENT + OFFSETS.tgid, PPID.to_bytes(4, "little")
    yield TASK + (OFFSETS.start or 0), start_time.to_bytes(8, "little")
    yield TASK + (OFFSETS.cred or 0), CRED.to_bytes(8, "little")
    yield CRED + (OFFSETS.uid or 0), UID.to_bytes(4, "little")
    yield CRED + (OFFSETS.gid or 0), GID.to_bytes(4, "little")
