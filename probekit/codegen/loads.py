"""Routines on memory that may not be there, on memory that a script may write, and on what the kernel knows.

    load_N      rax: address          -> rax: N bytes of kernel memory, zero-extended
    load_text   rsi, rdi: target, ecx: most bytes  -> the string at an address, with its NUL
    load_bytes  rsi, rdi: target, ecx: bytes       -> kernel memory copied
    may_store   rdi, ecx: bytes       -> carry when a script may not write there; keeps rdi, ecx, rdx, rsi
    in_memory   rdi, rcx: bytes       -> carry unless it is what alloca() gave; the same
    alloca      rsi: bytes            -> rax: address, zeroed; carry when there is no room
    bcopy       rsi, rdi: target, rcx: bytes       -> memory copied to what alloca() gave; they may overlap
    user_bytes  rsi, rdi: target, rcx: bytes       -> user memory copied
    user_text   rsi, rdi: target, ecx: most bytes  -> a string from user memory
    stack       rdi: target, ecx: frames           -> addresses of the callers and a 0, rax: how many
    stack_called  the same where a tracepoint has called us
    progenyof   rsi: process          -> rax: 1 when the task descends from it

Loads go through the kernel's own ``__get_user_nocheck_N``: one instruction with an entry in the exception table, so
that a page fault is an error and nothing more. What it lacks is the check that the address is one of the kernel's
half and canonical, which is made here as ``copy_from_kernel_nofault_allowed()`` makes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import FaultKind
from probekit.buffers.variables import ENTRY_HEAD
from probekit.codegen.context import FRAME_CALLER, FRAME_SITE, Context
from probekit.codegen.routines import At, Routine
from probekit.errors import UnsupportedError

__all__ = ("LOADS", "REGS_SIZE", "service", "spill")

_LIMIT = 0xFFFFFFFFFF5FFFF8
"""Above it there is only the vsyscall page, whose faults are not like others."""

REGS_SIZE = 21 * 8
"""``struct pt_regs``: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss."""

_KERNEL_CS = 0x10
_KERNEL_SS = 0x18
_GENERATIONS = 512
_DEEPEST = 127  # frames: what the kernel's own tools stop at


def service(address: int | None, what: str) -> int:
    """The address of a kernel function. Raises :class:`UnsupportedError` where the kernel has none."""
    if address is None:
        raise UnsupportedError(f"this kernel has no {what} that a probe may call", feature=what)
    return address


def _load(size: int) -> Routine:
    def text(context: Context, _at: At) -> str:
        start = context.kernel.start
        function = service(context.kernel.load.get(size), f"__get_user_nocheck_{size}")
        widened = {1: "movzx eax, dl", 2: "movzx eax, dx", 4: "mov eax, edx", 8: "mov rax, rdx"}[size]
        return f"""
            mov rcx, {start:#x}
            mov rdx, rax
            sub rdx, rcx
            mov rcx, {_LIMIT - start:#x}
            cmp rdx, rcx
            ja bad
            mov rcx, rax
            call {function:#x}
            test eax, eax
            jnz fault
            {widened}
            ret
        fault:
            mov rax, rcx
        bad:
            stc
            ret
        """

    return text


def _load_text(_context: Context, at: At) -> str:
    """Bytewise: a string may end at the last byte that is there. r8 what is left; the fault is at the missing byte."""
    return f"""
        mov r8d, ecx
    next:
        mov rax, rsi
        call {at("load_1"):#x}
        jc fault
        mov byte ptr [rdi], al
        test al, al
        jz done
        inc rdi
        inc rsi
        dec r8d
        jnz next
        mov byte ptr [rdi], 0
    done:
        clc
        ret
    fault:
        mov byte ptr [rdi], 0
        mov rax, rsi
        stc
        ret
    """


def _load_bytes(_context: Context, at: At) -> str:
    return f"""
        mov r9, rsi
        mov r8d, ecx
    next:
        cmp r8d, 8
        jb bytes
        mov rax, rsi
        call {at("load_8"):#x}
        jc fault
        mov qword ptr [rdi], rax
        add rsi, 8
        add rdi, 8
        sub r8d, 8
        jmp next
    bytes:
        test r8d, r8d
        jz done
        mov rax, rsi
        call {at("load_1"):#x}
        jc fault
        mov byte ptr [rdi], al
        inc rsi
        inc rdi
        dec r8d
        jmp bytes
    done:
        clc
        ret
    fault:
        mov rax, r9
        stc
        ret
    """


def _within(start: str, size: int, label: str) -> str:
    """On to ``done`` when [rdi, rdi + ecx) lies in ``size`` bytes from the address in ``start``; else to ``label``."""
    return f"""
        mov rax, rdi
        sub rax, {start}
        cmp rax, {size:#x}
        jae {label}
        add rax, rcx
        cmp rax, {size:#x}
        jbe done
    {label}:
    """


def _may_store(context: Context, _at: At) -> str:
    """Objects that the script declared, its own scratch memory, and the elements of its arrays."""
    scratch, storage = context.scratch, context.storage
    checks: list[str] = []
    for var in storage.objects:
        place = storage.globals_[var]
        checks.append(f"mov r8, {context.activity + place.offset:#x}")
        checks.append(_within("r8", place.size, f"global_{var}"))
    for var, place in scratch.places.items():
        checks.append(f"lea r8, {context.in_scratch(place.offset)}")
        checks.append(_within("r8", place.size, f"local_{var}"))
    if scratch.texts_size:
        checks.append(f"lea r8, {context.in_scratch(scratch.texts)}")
        checks.append(_within("r8", scratch.texts_size, "texts"))
    if scratch.memory_size:
        checks.append(f"lea r8, {context.in_scratch(scratch.memory)}")
        checks.append(f"mov r9, qword ptr {context.in_scratch(scratch.free)}")
        checks.append(
            "sub r9, r8; mov rax, rdi; sub rax, r8; cmp rax, r9; jae memory; "
            "add rax, rcx; cmp rax, r9; jbe done\nmemory:"
        )
    checks += _entry_checks(context)
    return "\n".join((*checks, "stc", "ret", "done:", "clc", "ret"))


def _entry_checks(context: Context) -> Iterator[str]:
    """Values of threads and of elements: inside one entry, behind its head."""
    storage = context.storage
    tables = [(storage.threads, "thread", 0)]
    for table, name, _ in tables:
        if table is not None:
            yield _in_entries(name, context.activity + table.offset, table.size, table.stride, 16)
    if storage.dynamic is not None:
        table_ = storage.dynamic
        start = context.activity + table_.entries_offset
        yield _in_entries("element", start, table_.capacity * table_.stride, table_.stride, ENTRY_HEAD + 8)


def _in_entries(name: str, start: int, size: int, stride: int, head: int) -> str:
    return f"""
        mov r8, {start:#x}
        mov rax, rdi
        sub rax, r8
        cmp rax, {size:#x}
        jae {name}
        mov r9, rdx
        xor edx, edx
        mov r8d, {stride:#x}
        div r8
        mov rax, rdx
        mov rdx, r9
        cmp rax, {head:#x}
        jb {name}
        add rax, rcx
        cmp rax, {stride:#x}
        jbe done
    {name}:
    """


def _in_memory(context: Context, _at: At) -> str:
    scratch = context.scratch
    return f"""
        lea r8, {context.in_scratch(scratch.memory)}
        mov r9, qword ptr {context.in_scratch(scratch.free)}
        sub r9, r8
        mov rax, rdi
        sub rax, r8
        cmp rax, r9
        jae outside
        sub r9, rax
        cmp rcx, r9
        ja outside
        clc
        ret
    outside:
        stc
        ret
    """


def _alloca(context: Context, _at: At) -> str:
    scratch = context.scratch
    return f"""
        mov rax, qword ptr {context.in_scratch(scratch.free)}
        lea rdx, {context.in_scratch(scratch.memory + scratch.memory_size)}
        sub rdx, rax
        cmp rsi, rdx
        ja nothing
        add rsi, 7
        and rsi, -8
        cmp rsi, rdx
        ja nothing
        mov rdi, rax
        add rsi, rax
        mov qword ptr {context.in_scratch(scratch.free)}, rsi
    next:
        cmp rdi, rsi
        jae done
        mov qword ptr [rdi], 0
        add rdi, 8
        jmp next
    done:
        clc
        ret
    nothing:
        mov edx, {FaultKind.NOSCRATCH}
        xor eax, eax
        stc
        ret
    """


def _bcopy(context: Context, at: At) -> str:
    """A source that cannot be read is the fault before a target that cannot be written."""
    return f"""
        mov rax, rsi
        test rcx, rcx
        js fault
        jz done
        call {at("in_memory"):#x}
        jb target
        cmp rdi, rsi
        jbe forward
        mov rdx, rdi
        sub rdx, rsi
        cmp rdx, rcx
        jae forward
        mov r8, rcx
        mov r9, rsi
    back:
        lea rax, [r9 + r8 - 1]
        call {at("load_1"):#x}
        jb source
        mov byte ptr [rdi + r8 - 1], al
        dec r8
        jnz back
    done:
        clc
        ret
    source:
        mov rax, r9
        stc
        ret
    forward:
        call {at("load_bytes"):#x}
        ret
    target:
        mov rax, rsi
        call {at("load_1"):#x}
        mov rax, rsi
        jb fault
        mov rax, rdi
    fault:
        stc
        ret
    """


def _user_bytes(context: Context, _at: At) -> str:
    function = service(context.kernel.user_copy, "copy_from_user_nofault")
    return f"""
        mov {spill(context)}, rsi
        mov rdx, rcx
        sub rsp, 8
        call {function:#x}
        add rsp, 8
        test rax, rax
        jnz fault
        clc
        ret
    fault:
        mov rax, {spill(context)}
        stc
        ret
    """


def _user_text(context: Context, _at: At) -> str:
    """ecx: bytes with the NUL. The kernel's function ends what it cut with a NUL."""
    function = service(context.kernel.user_text, "strncpy_from_user_nofault")
    return f"""
        mov {spill(context)}, rsi
        mov rdx, rcx
        sub rsp, 8
        call {function:#x}
        add rsp, 8
        test rax, rax
        jle fault
        clc
        ret
    fault:
        mov rax, {spill(context)}
        stc
        ret
    """


def spill(context: Context, word: int = 0) -> str:
    """One of ten words that survive a call of the kernel's."""
    return f"qword ptr {context.in_scratch(context.scratch.temp + REGS_SIZE + 8 * word)}"


def _stack(*, called: bool) -> Routine:
    """From the registers at the site, whose own address the unwinder gives first: it is skipped.

    At a function's entry, and where it returns, the stack pointer is at the return address and nothing is saved.
    Where a tracepoint has called us (``called``) it begins with the place that we return to.
    """

    def text(context: Context, _at: At) -> str:
        return _unwind(context, called=called)

    return text


def _unwind(context: Context, *, called: bool) -> str:
    function = service(context.kernel.stack, "stack_trace_save_regs")
    regs = context.scratch.temp

    here = f"mov rax, qword ptr [rbp + {FRAME_CALLER}]"
    site = f"mov eax, dword ptr [rbp + {FRAME_SITE}]; mov rcx, {context.addresses:#x}; mov rax, qword ptr [rcx + rax*8]"

    def at(word: int) -> str:
        return f"qword ptr {context.in_scratch(regs + 8 * word)}"

    return f"""
        mov {spill(context)}, rdi
        mov edx, ecx
        mov rsi, rdi
        mov {at(0)}, r15
        mov {at(1)}, r14
        mov {at(2)}, r13
        mov {at(3)}, r12
        mov rax, qword ptr [rbp]
        mov {at(4)}, rax
        mov rax, qword ptr [rbp + 8]
        mov {at(5)}, rax
        mov rax, qword ptr [rbp - 24]
        mov {at(7)}, rax
        mov rax, qword ptr [rbp + 32]
        mov {at(12)}, rax
        mov rax, qword ptr [rbp + 24]
        mov {at(13)}, rax
        mov rax, qword ptr [rbp + 16]
        mov {at(14)}, rax
        {here if called else site}
        mov {at(16)}, rax
        mov {at(17)}, {_KERNEL_CS}
        mov {at(18)}, 2
        lea rax, [rbp + {FRAME_CALLER + (8 if called else 0)}]
        mov {at(19)}, rax
        mov {at(20)}, {_KERNEL_SS}
        lea rdi, {context.in_scratch(regs)}
        mov ecx, {0 if called else 1}
        sub rsp, 8
        call {function:#x}
        add rsp, 8
        mov eax, eax
        mov rdi, {spill(context)}
        mov qword ptr [rdi + rax*8], 0
        ret
    """


def _progenyof(context: Context, _at: At) -> str:
    task = context.task
    if task is None or task.parent is None:
        raise UnsupportedError("progenyof() needs the kernel's type information", feature="progenyof")
    return f"""
        mov rdx, qword ptr gs:[{task.current:#x}]
        mov ecx, {_GENERATIONS}
    next:
        movsxd rax, dword ptr [rdx + {task.tgid:#x}]
        cmp rax, rsi
        je yes
        mov rax, rdx
        mov rdx, qword ptr [rdx + {task.parent:#x}]
        cmp rax, rdx
        je no
        dec ecx
        jnz next
    no:
        xor eax, eax
        ret
    yes:
        mov eax, 1
        ret
    """


LOADS: dict[str, Routine] = {
    **{f"load_{size}": _load(size) for size in (1, 2, 4, 8)},
    "alloca": _alloca,
    "bcopy": _bcopy,
    "in_memory": _in_memory,
    "load_bytes": _load_bytes,
    "load_text": _load_text,
    "may_store": _may_store,
    "progenyof": _progenyof,
    "stack": _stack(called=False),
    "stack_called": _stack(called=True),
    "user_bytes": _user_bytes,
    "user_text": _user_text,
}
