"""The frame around a list of clauses: what a site's stub calls.

A stub pushes its site number and calls the thunk; the thunk returns past both.
Interrupts are off while clauses run, so that only an NMI can come between: the
guard turns such a firing into a counted drop. A program that calls into the
kernel, or takes page faults there, also fires probes by its own doing. Those
are nobody's loss: the guard holds the CPU's NMI count beside its 1, and a
firing that finds the same count comes from the clause itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from probekit.buffers.layout import HeaderWord, TableStore
from probekit.codegen import costs
from probekit.codegen.clause import ClauseEmitter
from probekit.codegen.context import SITE_ENTRY_SIZE, SITE_FIELDS, Context
from probekit.codegen.demand import acts_on_guest
from probekit.codegen.frame import FRAME_CALLER, FRAME_SITE, MAX_FRAME, SAVED, SAVED_MORE, Frame
from probekit.codegen.reg_alloc import FACTS, LEADING_ARGUMENTS, ProbeKind
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import Routines
from probekit.errors import InternalError, UnsupportedError
from probekit.ir.names import BUILTINS
from probekit.ir.ops import (
    Aggregate,
    Arg,
    Bin,
    Builtin,
    Call,
    Clause,
    Cmp,
    Emit,
    Ext,
    Int,
    LoadVar,
    Op,
    StoreVar,
    Str,
    StrCmp,
    VarAddr,
)
from probekit.kernel.syscalls import CALL_NUMBER

__all__ = ("CALL_BODY_SIZE", "call_body", "thunk_text")

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


_PLAIN = ("epid", "errno", *FACTS, *(name for name, info in BUILTINS.items() if info.per_probe))
"""Built-ins whose code changes none of ``SAVED_MORE``."""

_NMI_MASK = 0xF00000  # of the preemption count (include/linux/preempt.h)


def _uses(op: Op, clause: Clause, kind: ProbeKind, context: Context) -> int:
    """How many of ``SAVED_MORE`` an operation reads as arguments, or its code changes."""
    match op:
        case Builtin(name="timestamp"):
            return 0 if context.tsc_khz else 4
        case Builtin(name=name):
            return 4 if name not in _PLAIN or (name == "caller" and kind == "instruction") else 0
        case Aggregate(agg=agg):
            plan = context.aggregations[agg]
            if plan.func == "llquantize":
                return 4
            simple = all(part.kind in ("int", "uint", "probe") or part.size == 16 for part in plan.keys)
            return 0 if not isinstance(context.store(agg), TableStore) else 3 if simple else 4
        case Arg(index=index) if kind in LEADING_ARGUMENTS and index + LEADING_ARGUMENTS[kind] in (4, 5):
            return 2
        case LoadVar(var=var) | StoreVar(var=var):
            variable = context.program.variables[var]
            return 0 if variable.kind == "int" and variable.scope != "self" else 4
        case Emit(field=field):
            if clause.record is None:
                raise InternalError("a clause with actions on the guest has no record")
            place = clause.record.fields[field]
            return 0 if place.kind in ("int", "uint", "probe") or place.size == 16 else 4
        case Arg() | Bin() | Cmp() | Ext() | Int() | Str() | StrCmp():
            return 0
        case _:
            return 4


def _more_saved(clauses: Sequence[Clause], kind: ProbeKind, context: Context) -> tuple[str, ...]:
    """Which of ``SAVED_MORE`` the clauses need."""
    needed = (_uses(op, clause, kind, context) for clause in clauses for block in clause.blocks for op in block.ops)
    if any(acts_on_guest(clause.record) for clause in clauses):
        return SAVED_MORE
    return SAVED_MORE[: max(needed, default=0)]


def _guard(context: Context) -> Iterator[str]:
    """eax = what the guard holds while clauses run that call into the kernel."""
    yield f"mov eax, dword ptr gs:[{context.kernel.preempt_count:#x}]"
    yield f"and eax, {_NMI_MASK:#x}"
    yield "or eax, 1"


def _is_the_call(context: Context) -> Iterator[str]:
    """Leave where the function returns to others than a system call's caller, or from another system call."""
    entry = context.kernel.syscalls
    if entry.stack_top is None or not entry.callers:
        raise UnsupportedError("where system calls return is not known of this kernel", feature="syscall return")
    for start, end in entry.callers:
        yield f"mov rax, qword ptr [rbp + {FRAME_CALLER}]"
        yield f"mov rcx, {start:#x}"
        yield "sub rax, rcx"
        yield f"cmp rax, {end - start:#x}"
        yield "jb called"
    yield "jmp silent"
    yield "called:"
    yield f"mov rdx, qword ptr gs:[{entry.stack_top:#x}]"
    yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
    yield f"imul rax, rax, {SITE_ENTRY_SIZE}"
    yield f"mov rcx, {context.sites + SITE_FIELDS['call']:#x}"
    yield "mov eax, dword ptr [rcx + rax]"
    yield f"cmp eax, dword ptr [rdx - {-CALL_NUMBER}]"
    yield "jne silent"


def _start(clauses: Sequence[Clause], context: Context, routines: Routines) -> Iterator[str]:
    """What a firing begins with: no entry among the threads known, ``this->`` strings and objects all zero."""
    ops = [op for clause in clauses for block in clause.blocks for op in block.ops]
    scratch = context.scratch
    if context.storage.threads is not None:
        yield f"mov qword ptr {context.in_scratch(scratch.thread)}, 0"
    places = (op.var for op in ops if isinstance(op, LoadVar | StoreVar | VarAddr))
    if any(var in scratch.places for var in places) or any(isinstance(op, Call) and op.name == "strtok" for op in ops):
        words = scratch.locals_size // 8
        yield f"lea rdi, {context.in_scratch(scratch.locals_)}"
        yield f"mov ecx, {words:#x}"
        yield f"call {routines('clear'):#x}"


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
    if kind == "sysend":
        yield from _is_the_call(context)
    yield _load_block(context.slot)
    yield f"cmp {header(HeaderWord.GUARD)}, 0"
    yield "jne recursion"
    own_doing = context.services and context.kernel.preempt_count is not None
    if own_doing:
        yield from _guard(context)
    yield f"mov {header(HeaderWord.GUARD)}, {'rax' if own_doing else 1}"
    yield from costs.entered(context) if clauses else ()
    yield f"sub rsp, {frame.size:#x}"
    if more == SAVED_MORE:
        yield "and rsp, -16"  # the clock is compiled C
    for slot in frame.local_slots.values():
        yield f"mov qword ptr [rsp + {slot:#x}], 0"
    yield from _start(clauses, context, routines)
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
    if own_doing:
        yield from _guard(context)
        yield f"cmp {header(HeaderWord.GUARD)}, rax"
        yield "je own"
    yield f"inc {header(HeaderWord.RECURSION_DROPS)}"
    yield "own:"
    yield from _restore(more)


def thunk_text(clauses: Sequence[Clause], kind: ProbeKind, context: Context, frame: Frame, routines: Routines) -> str:
    """The text of one thunk. Raises :class:`UnsupportedError` when its frame would be too large."""
    if frame.size > MAX_FRAME:
        raise UnsupportedError(
            f"a clause needs {frame.size} bytes of kernel stack, more than the {MAX_FRAME} a probe may use",
            feature="stack",
            hint="split it into several clauses",
        )
    return "\n".join(_lines(clauses, kind, context, frame, routines))
