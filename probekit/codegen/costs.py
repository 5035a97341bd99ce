"""What clauses cost, measured where they run: one firing in so many is timed by the time stamp counter.

Only in a program that is to be measured: its blocks have words for it (:class:`probekit.buffers.layout.CostWords`).
A sample that is longer than a millisecond counts as one: interrupts are off, so the rest is the hypervisor's.
What leads to a clause and back (jump, call, registers) is timed beforehand, with a thunk that has no clauses and an
increment that nobody reads (:func:`calibration_text`).
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import SAMPLED_ONE_IN
from probekit.codegen.context import Context
from probekit.codegen.frame import Frame

__all__ = ("FIRINGS_TIMED", "begin", "calibration_text", "end", "entered")

FIRINGS_TIMED = 256
"""Firings in one stretch of a calibration."""

_STRETCHES = 16
_NOW = ("rdtsc", "shl rdx, 32", "or rax, rdx")


def _word(offset: int) -> str:
    return f"[rbx + {offset:#x}]"


def entered(context: Context) -> Iterator[str]:
    """Count a firing of the thunk."""
    costs = context.layout.costs
    if costs is not None:
        yield f"inc qword ptr {_word(costs.entries)}"


def begin(clause: int, context: Context, frame: Frame, label: str) -> Iterator[str]:
    """Count a firing of the clause, and start the clock of one in so many."""
    costs = context.layout.costs
    if costs is None:
        return
    firings = costs.firings(clause)
    yield f"mov qword ptr [rsp + {frame.clock:#x}], 0"
    yield f"test byte ptr {_word(firings)}, {SAMPLED_ONE_IN - 1}"
    yield f"jnz {label}_untimed"
    yield from _NOW
    yield f"mov qword ptr [rsp + {frame.clock:#x}], rax"
    yield f"{label}_untimed:"
    yield f"inc qword ptr {_word(firings)}"


def end(clause: int, context: Context, frame: Frame, label: str) -> Iterator[str]:
    """Stop the clock, if it was started."""
    costs = context.layout.costs
    if costs is None:
        return
    yield f"mov rcx, qword ptr [rsp + {frame.clock:#x}]"
    yield "test rcx, rcx"
    yield f"jz {label}_done"
    yield from _NOW
    yield "sub rax, rcx"
    yield f"mov ecx, {context.longest_sample:#x}"
    yield "cmp rax, rcx"
    yield f"jbe {label}_short"
    yield "mov rax, rcx"
    yield f"{label}_short:"
    yield f"add qword ptr {_word(costs.ticks(clause))}, rax"
    yield f"inc qword ptr {_word(costs.samples(clause))}"
    yield f"{label}_done:"


def calibration_text(body: str) -> str:
    """A function that returns the fewest ticks for ``FIRINGS_TIMED`` times a jump, ``body`` and a jump.

    It is called in place of a kernel function, so it spoils what it likes; ``body`` spoils nothing.
    """
    return f"""
        mov r15, -1
        mov r14d, {_STRETCHES}
    stretch:
        {"; ".join(_NOW)}
        mov r12, rax
        mov r13d, {FIRINGS_TIMED}
    next:
        jmp there
    there:
        {body}
        jmp back
    back:
        dec r13d
        jnz next
        {"; ".join(_NOW)}
        sub rax, r12
        cmp rax, r15
        jae slower
        mov r15, rax
    slower:
        dec r14d
        jnz stretch
        mov rax, r15
        ret
    """
