"""Actions on the guest itself: waiting, signals, writing to a program's memory, ending the kernel.

chill       rsi: nanoseconds     -> that much later; carry when it would be too much
signal      rsi: its number      -> on its way to the process that runs; carry when it cannot be
user_put    rdi: user address, rsi, rdx: bytes   -> memory of ours copied to the program's; carry when it cannot be
panic       never comes back
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import FaultKind, HeaderWord
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import AddressOf, Routine, kernel_function
from probekit.codegen.runtime.stack import spill
from probekit.errors import UnsupportedError

__all__ = ("LONGEST_CHILL_NS", "ROUTINES")

LONGEST_CHILL_NS = 500_000_000
"""What ``chill()`` may take of each interval of a second on one CPU, as DTrace has it."""

_INTERRUPTS = 0xFF0000  # of the preemption count: hard interrupts, and NMIs (include/linux/preempt.h)
_INTERVAL = 2  # such times
_PANIC = b"panic() by a probe of probekit\0"


def _chill(context: CodegenContext, _address_of: AddressOf) -> str:
    """Interrupts are off, so it is one CPU's counter all the time. No turn of the loop takes less than a nanosecond, so
    that it ends even where the counter should stand still. r8: ticks to wait, r9: when it began."""
    khz = context.tsc_khz
    if not khz:
        raise UnsupportedError("how fast this guest's time stamp counter is is not known", feature="chill")
    limit = LONGEST_CHILL_NS * khz // 1_000_000
    now = "rdtsc; shl rdx, 32; or rax, rdx"
    return f"""
        cmp rsi, {LONGEST_CHILL_NS}
        ja refused
        mov rax, rsi
        mov ecx, {khz:#x}
        mul rcx
        add rax, 999999
        mov ecx, 1000000
        div rcx
        mov r8, rax
        {now}
        mov r9, rax
        sub rax, {header(HeaderWord.CHILL_SINCE)}
        mov rcx, {_INTERVAL * limit:#x}
        cmp rax, rcx
        jbe same
        mov {header(HeaderWord.CHILL_SINCE)}, r9
        mov {header(HeaderWord.CHILLED)}, 0
    same:
        mov rax, r8
        add rax, {header(HeaderWord.CHILLED)}
        mov rcx, {limit:#x}
        cmp rax, rcx
        ja refused
        mov {header(HeaderWord.CHILLED)}, rax
    wait:
        pause
        {now}
        sub rax, r9
        cmp rax, r8
        jae done
        dec rsi
        jns wait
    done:
        clc
        ret
    refused:
        mov edx, {FaultKind.ILLOP}
        xor eax, eax
        stc
        ret
    """


def _signal(context: CodegenContext, _address_of: AddressOf) -> str:
    """By what the kernel has for its own tracing programs (kernel/trace/bpf_trace.c).

    With interrupts off it leaves the sending to an interrupt that the CPU raises for itself, in a function and memory
    of the kernel's own, once for each CPU: no lock is taken where the probe is, and nothing of ours is waited for.
    Its refusals: no such signal, a kernel thread, the first process, a CPU whose last signal is not sent yet. One of
    ours: while an interrupt is handled, to which whoever runs is a stranger; and where that very interrupt is probed,
    each signal would make the next one.
    """
    word = spill(context)
    count = context.kernel.preempt_count
    if count is None:
        raise UnsupportedError("whether this kernel handles an interrupt is not known to a probe", feature="raise")
    return f"""
        mov {word}, rsi
        test dword ptr gs:[{count:#x}], {_INTERRUPTS:#x}
        jnz refused
        mov edi, esi
        sub rsp, 8
        call {kernel_function(context.kernel.send_signal, "bpf_send_signal"):#x}
        add rsp, 8
        test rax, rax
        jnz refused
        clc
        ret
    refused:
        mov edx, {FaultKind.ILLOP}
        mov rax, {word}
        stc
        ret
    """


def _user_put(context: CodegenContext, _address_of: AddressOf) -> str:
    """Only where the task's own memory is mapped: a kernel thread may have borrowed another's, and while one is
    switched there may be none."""
    copy = kernel_function(context.kernel.to_user, "copy_to_user_nofault")
    okay = kernel_function(context.kernel.user_okay, "nmi_uaccess_okay")
    words = [spill(context, word) for word in range(3)]
    return f"""
        mov {words[0]}, rdi
        mov {words[1]}, rsi
        mov {words[2]}, rdx
        sub rsp, 8
        call {okay:#x}
        test al, al
        jz fault
        mov rdi, {words[0]}
        mov rsi, {words[1]}
        mov rdx, {words[2]}
        call {copy:#x}
        test rax, rax
        jnz fault
        add rsp, 8
        clc
        ret
    fault:
        mov rax, {words[0]}
        add rsp, 8
        stc
        ret
    """


def _panic(context: CodegenContext, _address_of: AddressOf) -> str:
    return "\n".join(
        (
            *_written(context),
            f"lea rdi, {context.in_scratch(context.scratch.temp)}",
            "xor eax, eax",  # none of its arguments is in a vector register
            "sub rsp, 8",
            f"call {kernel_function(context.kernel.panic, 'panic'):#x}",
            "add rsp, 8",
            "ret",
        )
    )


def _written(context: CodegenContext) -> Iterator[str]:
    """What the kernel is to say, in memory."""
    text = _PANIC.ljust(-(-len(_PANIC) // 8) * 8, b"\0")
    for at in range(0, len(text), 8):
        yield f"mov rax, {int.from_bytes(text[at : at + 8], 'little'):#x}"
        yield f"mov qword ptr {context.in_scratch(context.scratch.temp + at)}, rax"


ROUTINES: dict[str, Routine] = {
    "chill": _chill,
    "panic": _panic,
    "send_signal": _signal,
    "copy_to_user": _user_put,
}
