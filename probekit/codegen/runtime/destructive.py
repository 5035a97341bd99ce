"""Act on the guest itself: wait, send signals, write to a program's memory, end the kernel.

chill         rsi: nanoseconds     -> returns that much later; carry when it would be too much
send_signal   rsi: its number      -> the signal goes to the running process; carry when it cannot
copy_to_user  rdi: user address, rsi: memory of ours, rdx: bytes   -> carry when it cannot be written
panic         never returns
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
"""The most that ``chill()`` may take of each second on one CPU (DTrace guide, chapter on actions)."""

_INTERRUPT_BITS = 0xFF0000  # of the preemption count: hard interrupts, and NMIs (include/linux/preempt.h)
_CHILLS_PER_INTERVAL = 2  # an interval, a second, is so many times the longest chill
_PANIC_MESSAGE = b"panic() by a probe of probekit\0"


def _chill(context: CodegenContext, _address_of: AddressOf) -> str:
    """Wait by the time stamp counter, which stays that of one CPU as interrupts are off.

    No turn of the loop takes less than a nanosecond, so it ends after that many turns even where the counter should
    stand still. r8: the ticks to wait; r9: when it began.
    """
    khz = context.tsc_khz
    if not khz:
        raise UnsupportedError("the speed of this guest's time stamp counter is not known", feature="chill")
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
        mov rcx, {_CHILLS_PER_INTERVAL * limit:#x}
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


def _send_signal(context: CodegenContext, _address_of: AddressOf) -> str:
    """Send a signal by the function that the kernel has for its own tracing programs (kernel/trace/bpf_trace.c).

    With interrupts off that function leaves the sending to an interrupt that the CPU raises for itself, in code and
    memory of the kernel's own, once for each CPU. So it takes no lock where the probe is, and does not wait for us. It
    refuses an unknown signal, a kernel thread, the first process, and a CPU whose last signal is not sent yet. This
    routine also refuses while an interrupt is handled: the interrupt does not belong to the running process, and where
    that very interrupt is probed, each signal would cause the next one.
    """
    word = spill(context)
    count = context.kernel.preempt_count
    if count is None:
        raise UnsupportedError("a probe cannot tell whether this kernel is handling an interrupt", feature="raise")
    return f"""
        mov {word}, rsi
        test dword ptr gs:[{count:#x}], {_INTERRUPT_BITS:#x}
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


def _copy_to_user(context: CodegenContext, _address_of: AddressOf) -> str:
    """Write only where the task's own memory is mapped.

    A kernel thread may have borrowed another task's memory, and during a switch there may be none.
    """
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
            *_store_panic_message(context),
            f"lea rdi, {context.in_scratch(context.scratch.temp)}",
            "xor eax, eax",  # none of its arguments is in a vector register
            "sub rsp, 8",
            f"call {kernel_function(context.kernel.panic, 'panic'):#x}",
            "add rsp, 8",
            "ret",
        )
    )


def _store_panic_message(context: CodegenContext) -> Iterator[str]:
    """Store the message for the kernel in the scratch memory."""
    text = _PANIC_MESSAGE.ljust(-(-len(_PANIC_MESSAGE) // 8) * 8, b"\0")
    for offset in range(0, len(text), 8):
        yield f"mov rax, {int.from_bytes(text[offset : offset + 8], 'little'):#x}"
        yield f"mov qword ptr {context.in_scratch(context.scratch.temp + offset)}, rax"


ROUTINES: dict[str, Routine] = {
    "chill": _chill,
    "panic": _panic,
    "send_signal": _send_signal,
    "copy_to_user": _copy_to_user,
}
