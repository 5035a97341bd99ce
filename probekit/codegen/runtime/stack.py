"""Routines that walk the kernel's stack by its own unwinder.

stack       rdi: target, ecx: frames           -> addresses of the callers and a 0, rax: how many
stack_called  the same where a tracepoint has called us
"""

from __future__ import annotations

from probekit.codegen.context import Context
from probekit.codegen.frame import FRAME_CALLER, FRAME_SITE
from probekit.codegen.runtime.registry import At, Routine, service

__all__ = (
    "REGS_SIZE",
    "ROUTINES",
    "spill",
)

REGS_SIZE = 21 * 8
"""``struct pt_regs``: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss."""
_KERNEL_CS = 0x10
_KERNEL_SS = 0x18
_DEEPEST = 127  # frames: what the kernel's own tools stop at


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


ROUTINES: dict[str, Routine] = {
    "stack": _stack(called=False),
    "stack_called": _stack(called=True),
}
