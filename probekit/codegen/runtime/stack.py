"""Walk the kernel's stack by the kernel's own unwinder.

stack          rdi: target, ecx: frames   -> the addresses of the callers and a 0; rax: how many callers
stack_at_hook  the same where a tracepoint or marker has called us
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.frame import FRAME_CALLER, FRAME_SITE
from probekit.codegen.runtime.registry import AddressOf, Routine, kernel_function

__all__ = (
    "REGS_SIZE",
    "ROUTINES",
    "spill",
)

REGS_SIZE = 21 * 8
"""Bytes of ``struct pt_regs``: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss."""
_KERNEL_CS = 0x10
_KERNEL_SS = 0x18


def spill(context: CodegenContext, word: int = 0) -> str:
    """Return the operand of one of ten words that survive a call of a kernel function."""
    return f"qword ptr {context.in_scratch(context.scratch.temp + REGS_SIZE + 8 * word)}"


def _stack(*, called: bool) -> Routine:
    """Walk from the registers at the site. The unwinder gives the site's own address first, which is skipped.

    At a function's entry, and where it returns, the stack pointer is at the return address and nothing is saved.
    ``called``: a tracepoint or marker has called us, so the walk begins with the place that we return to.
    """

    def text(context: CodegenContext, _address_of: AddressOf) -> str:
        return _unwind(context, called=called)

    return text


def _unwind(context: CodegenContext, *, called: bool) -> str:
    function = kernel_function(context.kernel.stack, "stack_trace_save_regs")
    regs = context.scratch.temp

    start = f"mov rax, qword ptr [rbp + {FRAME_CALLER}]"
    if not called:
        table = context.site_addresses
        start = f"mov eax, dword ptr [rbp + {FRAME_SITE}]; mov rcx, {table:#x}; mov rax, qword ptr [rcx + rax*8]"

    def register_word(word: int) -> str:
        return f"qword ptr {context.in_scratch(regs + 8 * word)}"

    return f"""
        mov {spill(context)}, rdi
        mov edx, ecx
        mov rsi, rdi
        mov {register_word(0)}, r15
        mov {register_word(1)}, r14
        mov {register_word(2)}, r13
        mov {register_word(3)}, r12
        mov rax, qword ptr [rbp]
        mov {register_word(4)}, rax
        mov rax, qword ptr [rbp + 8]
        mov {register_word(5)}, rax
        mov rax, qword ptr [rbp - 24]
        mov {register_word(7)}, rax
        mov rax, qword ptr [rbp + 32]
        mov {register_word(12)}, rax
        mov rax, qword ptr [rbp + 24]
        mov {register_word(13)}, rax
        mov rax, qword ptr [rbp + 16]
        mov {register_word(14)}, rax
        {start}
        mov {register_word(16)}, rax
        mov {register_word(17)}, {_KERNEL_CS}
        mov {register_word(18)}, 2
        lea rax, [rbp + {FRAME_CALLER + (8 if called else 0)}]
        mov {register_word(19)}, rax
        mov {register_word(20)}, {_KERNEL_SS}
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
    "stack_at_hook": _stack(called=True),
}
