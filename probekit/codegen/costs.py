"""Measure what clauses cost, where they run: one firing in so many is timed by the time stamp counter.

Only a measured program has this code; its blocks have words for it (:class:`probekit.buffers.layout.CostWords`).
A sample that is longer than a millisecond counts as a millisecond: interrupts are off, so the rest of the time is the
hypervisor's. What leads to a clause and back (jump, call, registers) is timed beforehand, with a thunk that has no
clauses and an increment that is never read (:func:`calibration_text`).
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import SAMPLED_ONE_IN
from probekit.codegen.context import CodegenContext
from probekit.codegen.frame import Frame

__all__ = ("FIRINGS_TIMED", "calibration_text", "count_firing", "start_timing", "stop_timing")

FIRINGS_TIMED = 256
"""How many firings one run of a calibration times."""

_RUNS = 16  # the fastest one counts
_READ_TSC = ("rdtsc", "shl rdx, 32", "or rax, rdx")


def _block_word(offset: int) -> str:
    return f"[rbx + {offset:#x}]"


def count_firing(context: CodegenContext) -> Iterator[str]:
    """Count a firing of the thunk."""
    costs = context.layout.costs
    if costs is not None:
        yield f"inc qword ptr {_block_word(costs.entries)}"


def start_timing(clause: int, context: CodegenContext, frame: Frame, label: str) -> Iterator[str]:
    """Count a firing of the clause, and note the time when it is one of those that are timed."""
    costs = context.layout.costs
    if costs is None:
        return
    firings = costs.firings(clause)
    yield f"mov qword ptr [rsp + {frame.clock:#x}], 0"
    yield f"test byte ptr {_block_word(firings)}, {SAMPLED_ONE_IN - 1}"
    yield f"jnz {label}_untimed"
    yield from _READ_TSC
    yield f"mov qword ptr [rsp + {frame.clock:#x}], rax"
    yield f"{label}_untimed:"
    yield f"inc qword ptr {_block_word(firings)}"


def stop_timing(clause: int, context: CodegenContext, frame: Frame, label: str) -> Iterator[str]:
    """Add the time that the clause took, when this firing is timed."""
    costs = context.layout.costs
    if costs is None:
        return
    yield f"mov rcx, qword ptr [rsp + {frame.clock:#x}]"
    yield "test rcx, rcx"
    yield f"jz {label}_done"
    yield from _READ_TSC
    yield "sub rax, rcx"
    yield f"mov ecx, {context.longest_sample:#x}"
    yield "cmp rax, rcx"
    yield f"jbe {label}_short"
    yield "mov rax, rcx"
    yield f"{label}_short:"
    yield f"add qword ptr {_block_word(costs.ticks(clause))}, rax"
    yield f"inc qword ptr {_block_word(costs.samples(clause))}"
    yield f"{label}_done:"


def calibration_text(body: str) -> str:
    """Return the text of a function that times ``FIRINGS_TIMED`` firings: a jump, ``body`` and a jump back for each.

    The function returns the fewest ticks of several runs. It is called as kernel functions are, by the host, which
    saves all registers. ``body`` must keep all registers.
    """
    return f"""
        mov r15, -1
        mov r14d, {_RUNS}
    run:
        {"; ".join(_READ_TSC)}
        mov r12, rax
        mov r13d, {FIRINGS_TIMED}
    next:
        jmp forth
    forth:
        {body}
        jmp back
    back:
        dec r13d
        jnz next
        {"; ".join(_READ_TSC)}
        sub rax, r12
        cmp rax, r15
        jae slower
        mov r15, rax
    slower:
        dec r14d
        jnz run
        mov rax, r15
        ret
    """
