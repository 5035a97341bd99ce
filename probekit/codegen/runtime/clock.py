"""Routines on time.

    run_time   -> rax: nanoseconds for which the current task has been on a CPU

The scheduler's account of it is five words, and any CPU that wakes a task for this one may bring them up to date
while they are read here: under the run queue's lock, first the clocks, then what the task has had. So they are
taken when nobody has the lock, before and behind, and are still the same; otherwise once more. Who is probed may
hold the lock itself, with interrupts off: then nobody else changes them.

What has passed since the clocks were set is not always charged to who runs: where a wake-up has set them and asks for
another task at once, the scheduler leaves them as they are, and the next task is charged with the time between. So
the highest answer of each thread is kept, and no answer is below it.
"""

from __future__ import annotations

from probekit.buffers.variables import RUN_TIME
from probekit.codegen.context import CodegenContext
from probekit.codegen.frame import FRAME_FLAGS
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.errors import InternalError, UnsupportedError

__all__ = ("ROUTINES",)

_TRIES = 1_000_000  # some milliseconds: a virtual CPU that holds the lock may lose its own CPU meanwhile
_TRIES_INSIDE = 16
_INTERRUPTS = 0x200  # of the flags


def _run_time(context: CodegenContext, address_of: AddressOf) -> str:
    """r8: the time now; rsi, rdi: the queue's clocks; r10: since when, r11: until then; rdx: of that, interrupts'."""
    task, times = context.task, context.kernel.run_time
    if task is None or times is None:
        raise UnsupportedError("vtimestamp needs the types of this kernel's scheduler", feature="vtimestamp")
    if context.storage.threads is None:
        raise InternalError("vtimestamp has no table of threads")
    highest = context.storage.threads.variables[RUN_TIME].offset
    interrupts = ""
    if times.interrupts is not None:
        spent, known = times.interrupts
        interrupts = f"mov rdx, qword ptr gs:[{spent:#x}]; sub rdx, qword ptr gs:[{known:#x}]"
    return f"""
        movsxd rdi, dword ptr gs:[{task.cpu:#x}]
        sub rsp, 8
        call {times.now:#x}
        add rsp, 8
        mov r8, rax
        mov r9, qword ptr gs:[{task.current:#x}]
        xor edx, edx
        mov ecx, {_TRIES_INSIDE}
        test dword ptr [rbp + {FRAME_FLAGS}], {_INTERRUPTS:#x}
        jz next
        mov ecx, {_TRIES}
    next:
        mov eax, dword ptr gs:[{times.lock:#x}]
        mov rsi, qword ptr gs:[{times.clock:#x}]
        mov rdi, qword ptr gs:[{times.task_clock:#x}]
        mov r10, qword ptr [r9 + {times.since:#x}]
        mov r11, qword ptr [r9 + {times.total:#x}]
        {interrupts}
        or eax, dword ptr gs:[{times.lock:#x}]
        jnz again
        cmp rsi, qword ptr gs:[{times.clock:#x}]
        jne again
        cmp rdi, qword ptr gs:[{times.task_clock:#x}]
        jne again
        cmp r10, qword ptr [r9 + {times.since:#x}]
        jne again
        cmp r11, qword ptr [r9 + {times.total:#x}]
        je done
    again:
        pause
        dec ecx
        jnz next
    done:
        mov rax, r8
        sub rax, rsi
        sub rax, rdx
        cqo
        not rdx
        and rax, rdx
        add rax, rdi
        sub rax, r10
        add rax, r11
        mov rdx, rax
        call {address_of("thread_create"):#x}
        test rax, rax
        jz alone
        cmp rdx, qword ptr [rax + {highest:#x}]
        jbe before
        mov qword ptr [rax + {highest:#x}], rdx
    alone:
        mov rax, rdx
        ret
    before:
        mov rax, qword ptr [rax + {highest:#x}]
        ret
    """


ROUTINES: dict[str, Routine] = {"run_time": _run_time}
