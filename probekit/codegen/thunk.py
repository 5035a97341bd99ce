"""The frame around a list of clauses: what a site's stub calls.

A stub pushes its site number and calls the thunk; the thunk returns past both.
Interrupts are off while clauses run, so that only an NMI (or a fault of our
own) can come between: the guard turns such a firing into a counted drop.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from probekit.buffers.layout import HeaderWord, TableStore
from probekit.codegen.clause import ClauseEmitter
from probekit.codegen.context import SAVED, SAVED_MORE, Context, ProbeKind
from probekit.codegen.frame import MAX_FRAME, Frame
from probekit.codegen.routines import Routines
from probekit.codegen.runtime import header
from probekit.errors import UnsupportedError
from probekit.ir.ops import Aggregate, Arg, Builtin, Clause
from probekit.isa.assemble import assemble

__all__ = ("CALL_BODY_SIZE", "call_body", "thunk")

CALL_BODY_SIZE = 10


def call_body(site: int, body_addr: int, thunk_addr: int) -> bytes:
    """The body of a stub that calls a thunk.

    68 site        push site
    e8 rel32       call thunk      (the thunk's ``ret 8`` takes the site number with it)
    """
    return struct.pack("<BiBi", 0x68, site, 0xE8, thunk_addr - (body_addr + CALL_BODY_SIZE))


def _load_block(slot: int) -> str:
    """rbx = this CPU's block."""
    if -(1 << 31) <= slot < 1 << 31:
        return f"mov rbx, qword ptr gs:[{slot:#x}]" if slot >= 0 else f"mov rbx, qword ptr gs:[-{-slot:#x}]"
    return f"mov rbx, {slot & (1 << 64) - 1:#x}; mov rbx, qword ptr gs:[rbx]"


def _more_saved(clauses: Sequence[Clause], kind: ProbeKind, context: Context) -> tuple[str, ...]:
    """Which of ``SAVED_MORE`` the clauses read as arguments, or use: look-ups do, and the kernel's clock."""
    needed = 0
    for op in (op for clause in clauses for block in clause.blocks for op in block.ops):
        match op:
            case Builtin(name="timestamp"):
                return SAVED_MORE
            case Aggregate(agg=agg) if isinstance(context.store(agg), TableStore):
                needed = max(needed, 3)
            case Arg(index=4 | 5) if kind == "entry":
                needed = max(needed, 2)
            case _:
                pass
    return SAVED_MORE[:needed]


def _restore(more: Sequence[str]) -> Iterator[str]:
    yield f"lea rsp, [rbp - {8 * len(more)}]" if more else "mov rsp, rbp"
    yield from (f"pop {register}" for register in reversed((*SAVED, *more)))
    yield "popfq"
    yield "ret 8"


def _lines(
    clauses: Sequence[Clause], kind: ProbeKind, context: Context, frame: Frame, routines: Routines
) -> Iterator[str]:
    more = _more_saved(clauses, kind, context)
    yield "pushfq"
    yield "cli"
    yield from (f"push {register}" for register in SAVED)
    yield "mov rbp, rsp"
    yield from (f"push {register}" for register in more)
    yield f"mov rax, {context.activity:#x}"
    yield "cmp qword ptr [rax], 0"
    yield "jne silent"
    yield _load_block(context.slot)
    yield f"cmp {header(HeaderWord.GUARD)}, 0"
    yield "jne recursion"
    yield f"mov {header(HeaderWord.GUARD)}, 1"
    yield f"sub rsp, {frame.size:#x}"
    if more == SAVED_MORE:
        yield "and rsp, -16"  # the clock is compiled C
    for slot in frame.local_slots.values():
        yield f"mov qword ptr [rsp + {slot:#x}], 0"
    for number, clause in enumerate(clauses):
        emitter = ClauseEmitter(
            clause, kind=kind, context=context, frame=frame, routines=routines, label=f"c{number}", leave="leave"
        )
        yield from emitter.lines()
    yield "leave:"
    yield f"mov {header(HeaderWord.GUARD)}, 0"
    yield "silent:"
    yield from _restore(more)
    yield "recursion:"
    yield f"inc {header(HeaderWord.RECURSION_DROPS)}"
    yield from _restore(more)


def thunk(
    clauses: Sequence[Clause], kind: ProbeKind, context: Context, frame: Frame, routines: Routines, addr: int
) -> bytes:
    """The code of one thunk at ``addr``. Raises :class:`UnsupportedError` when its frame would be too large."""
    if frame.size > MAX_FRAME:
        raise UnsupportedError(
            f"a clause needs {frame.size} bytes of kernel stack, more than the {MAX_FRAME} a probe may use",
            feature="stack",
            hint="split it into several clauses",
        )
    return assemble("\n".join(_lines(clauses, kind, context, frame, routines)), addr)
