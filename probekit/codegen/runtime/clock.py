"""Compute ``vtimestamp``.

    run_time   -> rax: nanoseconds for which the current task has been on a CPU

The scheduler keeps five words for it (kernel/sched/fair.c, ``update_curr``). Any CPU that wakes a task for this one
may update them while they are read here: it holds the run queue's lock, and sets first the clocks, then the task's
time. So a reading counts only when nobody has the lock before and after it, and the words are still the same;
otherwise they are read again. The probed code may hold the lock itself, with interrupts off: then no other CPU changes
the words.

The time that has passed since the clocks were set is not always charged to the task that runs. Where a wake-up has set
them and asks for another task at once, the scheduler leaves them as they are, and charges the next task with the time
between. So the highest result of each thread is kept, and no later result is below it.
"""

from __future__ import annotations

from probekit.buffers.variables import RUN_TIME
from probekit.codegen.context import CodegenContext
from probekit.codegen.frame import FRAME_FLAGS
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.errors import UnsupportedError, required
from probekit.guest.offsets import RunTime

__all__ = ("ROUTINES",)

_TRIES = 1_000_000  # some milliseconds: a virtual CPU that holds the lock may lose its own CPU meanwhile
_TRIES_UNDER_LOCK = 16  # with interrupts off the probed code may hold the lock
_INTERRUPT_FLAG = 0x200


def _run_time(context: CodegenContext, address_of: AddressOf) -> str:
    """Read the scheduler's words, and make the result no lower than the thread's highest one so far."""
    task, times = context.task, context.kernel.run_time
    if task is None or times is None:
        raise UnsupportedError("vtimestamp needs the types of this kernel's scheduler", feature="vtimestamp")
    threads = required(context.storage.threads, "the table of the threads' variables")
    highest = threads.variables[RUN_TIME].offset
    return f"""
        movsxd rdi, dword ptr gs:[{task.cpu:#x}]
        sub rsp, 8
        call {times.now:#x}
        add rsp, 8
        mov r8, rax
        mov r9, qword ptr gs:[{task.current:#x}]
        {_read_words(times)}
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


def _read_words(times: RunTime) -> str:
    """Read the words of the task at r9 until they are consistent, or after many tries as they are.

    rsi, rdi: the run queue's clocks; r10: when the last account was; r11: the task's time until then; rdx: the time
    that interrupts took since.
    """
    interrupts = ""
    if times.interrupts is not None:
        spent, accounted = times.interrupts
        interrupts = f"mov rdx, qword ptr gs:[{spent:#x}]; sub rdx, qword ptr gs:[{accounted:#x}]"
    return f"""
        xor edx, edx
        mov ecx, {_TRIES_UNDER_LOCK}
        test dword ptr [rbp + {FRAME_FLAGS}], {_INTERRUPT_FLAG:#x}
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
    """


ROUTINES: dict[str, Routine] = {"run_time": _run_time}
