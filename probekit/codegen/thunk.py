"""Write the frame around a list of clauses: what a site's stub calls.

A stub pushes its site number and calls the thunk. The thunk returns and takes the site number off the stack. While
clauses run, interrupts are off, so that only an NMI can interrupt them: the guard turns a firing in the NMI into a
counted drop. A program that calls into the kernel, or takes page faults there, can also fire probes itself. Such a
firing is no drop, and the two are told apart by the kernel's count of nested NMIs (the NMI bits of its preempt count):
while clauses run, the guard holds 1 and that count. A firing that finds the same count in the guard comes from the
clause itself; another count means that an NMI has come in between.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from probekit.buffers.layout import HeaderWord, TableStore
from probekit.codegen import costs
from probekit.codegen.clause import ClauseEmitter
from probekit.codegen.context import SITE_ENTRY_SIZE, SITE_FIELDS, CodegenContext
from probekit.codegen.demand import acts_on_guest
from probekit.codegen.frame import (
    FRAME_CALLER,
    FRAME_SITE,
    MAX_FRAME,
    OPTIONAL_REGISTERS,
    SAVED_REGISTERS,
    Frame,
)
from probekit.codegen.reg_alloc import LEADING_ARGUMENTS, REMATERIALIZED_BUILTINS, FiringKind
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import AddressOf
from probekit.errors import UnsupportedError, required
from probekit.ir.names import BUILTINS
from probekit.ir.ops import (
    Bin,
    CallSubroutine,
    Clause,
    Cmp,
    Emit,
    Ext,
    Int,
    LoadArg,
    LoadBuiltin,
    LoadVar,
    Op,
    StoreVar,
    Str,
    StrCmp,
    UpdateAgg,
    VarAddress,
)
from probekit.kernel.syscalls import CALL_NUMBER, COMPAT_CALL, X32_BIT

__all__ = ("CALL_BODY_SIZE", "call_body", "thunk_text")

CALL_BODY_SIZE = 10
"""Bytes of :func:`call_body`."""


def call_body(site: int, body_addr: int, thunk_addr: int) -> bytes:
    """Return the body of a stub that calls a thunk.

    68 site        push site
    e8 rel32       call thunk      (the thunk's ``ret 8`` takes the site number with it)
    """
    return struct.pack("<BiBi", 0x68, site, 0xE8, thunk_addr - (body_addr + CALL_BODY_SIZE))


def _load_block(slot: int) -> str:
    """Load ``rbx`` with the address of this CPU's block."""
    if -(1 << 31) <= slot < 1 << 31:
        return f"mov rbx, qword ptr gs:[{slot:#x}]" if slot >= 0 else f"mov rbx, qword ptr gs:[-{-slot:#x}]"
    return f"mov rbx, {slot & (1 << 64) - 1:#x}; mov rbx, qword ptr gs:[rbx]"


_SIMPLE_BUILTINS = (
    "epid",
    "errno",
    *REMATERIALIZED_BUILTINS,
    *(name for name, info in BUILTINS.items() if info.per_probe),
)
"""The built-ins whose code changes no optional register."""

_NMI_MASK = 0xF00000  # of the preemption count (include/linux/preempt.h)


def _optional_registers_used(op: Op, clause: Clause, kind: FiringKind, context: CodegenContext) -> int:
    """Return how many of the optional registers an operation reads as arguments, or its code changes."""
    match op:
        case LoadBuiltin(name="timestamp"):
            return 0 if context.shared_tsc_khz else 4
        case LoadBuiltin(name=name):
            return 4 if name not in _SIMPLE_BUILTINS or (name == "caller" and kind == "instruction") else 0
        case UpdateAgg(agg=agg):
            plan = context.aggregations[agg]
            if plan.func == "llquantize":
                return 4
            simple = all(part.kind in ("int", "uint", "probe") or part.size == 16 for part in plan.keys)
            return 0 if not isinstance(context.store(agg), TableStore) else 3 if simple else 4
        case LoadArg(index=index) if kind in LEADING_ARGUMENTS and index + LEADING_ARGUMENTS[kind] in (4, 5):
            return 2
        case LoadVar(var=var) | StoreVar(var=var):
            variable = context.program.variables[var]
            return 0 if variable.kind == "int" and variable.scope != "self" else 4
        case Emit(field=index):
            field = required(clause.record, "the record plan of a clause that emits fields").fields[index]
            return 0 if field.kind in ("int", "uint", "probe") or field.size == 16 else 4
        case LoadArg() | Bin() | Cmp() | Ext() | Int() | Str() | StrCmp():
            return 0
        case _:
            return 4


def _optional_registers(clauses: Sequence[Clause], kind: FiringKind, context: CodegenContext) -> tuple[str, ...]:
    """Return the optional registers that the clauses need."""
    if any(acts_on_guest(clause.record) for clause in clauses):
        return OPTIONAL_REGISTERS
    needed = (
        _optional_registers_used(op, clause, kind, context)
        for clause in clauses
        for block in clause.blocks
        for op in block.ops
    )
    return OPTIONAL_REGISTERS[: max(needed, default=0)]


def _load_guard(context: CodegenContext) -> Iterator[str]:
    """Load ``eax`` with what the guard holds while clauses run that call into the kernel."""
    yield f"mov eax, dword ptr gs:[{context.kernel.preempt_count:#x}]"
    yield f"and eax, {_NMI_MASK:#x}"
    yield "or eax, 1"


def _check_syscall(context: CodegenContext) -> Iterator[str]:
    """Leave unless this return ends the system call that is probed.

    A system call's function may also be called from elsewhere in the kernel: the return address tells. And it may be
    called while another system call is served: the number that the task entered the kernel with tells.
    """
    entry = context.kernel.syscalls
    if entry.stack_top is None or not entry.callers:
        raise UnsupportedError("it is not known where this kernel calls system calls from", feature="syscall return")
    yield "xor edx, edx"
    for way_in, flag in ((entry.callers, 0), (entry.compat_callers, COMPAT_CALL)):
        if flag and way_in:
            yield f"mov edx, {flag:#x}"
        for start, end in way_in:
            yield f"mov rax, qword ptr [rbp + {FRAME_CALLER}]"
            yield f"mov rcx, {start:#x}"
            yield "sub rax, rcx"
            yield f"cmp rax, {end - start:#x}"
            yield "jb called"
    yield "jmp silent"
    yield "called:"
    yield f"mov rcx, qword ptr gs:[{entry.stack_top:#x}]"
    yield f"mov ecx, dword ptr [rcx - {-CALL_NUMBER}]"
    yield f"and ecx, {~X32_BIT & 0xFFFFFFFF:#x}"
    yield "or edx, ecx"
    yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
    yield f"imul rax, rax, {SITE_ENTRY_SIZE}"
    yield f"mov rcx, {context.site_table + SITE_FIELDS['call']:#x}"
    yield "cmp edx, dword ptr [rcx + rax]"
    yield "jne silent"


def _prepare_firing(clauses: Sequence[Clause], context: CodegenContext, address_of: AddressOf) -> Iterator[str]:
    """Clear what is left of the firing before: the address of its thread's entry, strings and objects of ``this->``."""
    ops = [op for clause in clauses for block in clause.blocks for op in block.ops]
    scratch = context.scratch
    if context.storage.threads is not None:
        yield f"mov qword ptr {context.in_scratch(scratch.thread_entry)}, 0"
    used = (op.var for op in ops if isinstance(op, LoadVar | StoreVar | VarAddress))
    calls = (op.name for op in ops if isinstance(op, CallSubroutine))
    if any(var in scratch.local_variables for var in used) or "strtok" in calls:
        words = scratch.locals_size // 8
        yield f"lea rdi, {context.in_scratch(scratch.locals_)}"
        yield f"mov ecx, {words:#x}"
        yield f"call {address_of('clear_words'):#x}"


def _restore(optional: Sequence[str]) -> Iterator[str]:
    """Restore everything that was saved, and return."""
    yield f"lea rsp, [rbp - {8 * len(optional)}]" if optional else "mov rsp, rbp"
    yield from (f"pop {register}" for register in reversed((*SAVED_REGISTERS, *optional)))
    yield "popfq"
    yield "ret 8"


def _lines(
    clauses: Sequence[Clause], kind: FiringKind, context: CodegenContext, frame: Frame, address_of: AddressOf
) -> Iterator[str]:
    optional = _optional_registers(clauses, kind, context)
    yield "pushfq"
    yield "cli"
    yield from (f"push {register}" for register in SAVED_REGISTERS)
    yield "mov rbp, rsp"
    yield from (f"push {register}" for register in optional)
    yield f"mov rax, {context.activity:#x}"
    yield "cmp qword ptr [rax], 0"
    yield "jne silent"
    if kind == "sysend":
        yield from _check_syscall(context)
    yield _load_block(context.percpu_slot)
    yield f"cmp {header(HeaderWord.GUARD)}, 0"
    yield "jne recursion"
    may_fire_itself = context.services and context.kernel.preempt_count is not None
    if may_fire_itself:
        yield from _load_guard(context)
    yield f"mov {header(HeaderWord.GUARD)}, {'rax' if may_fire_itself else 1}"
    yield from costs.count_firing(context) if clauses else ()
    yield f"sub rsp, {frame.size:#x}"
    if optional == OPTIONAL_REGISTERS:
        yield "and rsp, -16"  # the clock is compiled C
    for offset in frame.local_slots.values():
        yield f"mov qword ptr [rsp + {offset:#x}], 0"
    yield from _prepare_firing(clauses, context, address_of)
    for number, clause in enumerate(clauses):
        emitter = ClauseEmitter(
            clause, kind=kind, context=context, frame=frame, address_of=address_of, label=f"c{number}", leave="leave"
        )
        yield from emitter.lines()
    yield "leave:"
    yield f"mov {header(HeaderWord.GUARD)}, 0"
    yield "silent:"
    yield from _restore(optional)
    yield "recursion:"
    if may_fire_itself:
        yield from _load_guard(context)
        yield f"cmp {header(HeaderWord.GUARD)}, rax"
        yield "je own"
    yield f"inc {header(HeaderWord.RECURSION_DROPS)}"
    yield "own:"
    yield from _restore(optional)


def thunk_text(
    clauses: Sequence[Clause], kind: FiringKind, context: CodegenContext, frame: Frame, address_of: AddressOf
) -> str:
    """Return the text of one thunk. Raises :class:`UnsupportedError` when its frame would be too large."""
    if frame.size > MAX_FRAME:
        raise UnsupportedError(
            f"a clause needs {frame.size} bytes of kernel stack, more than the {MAX_FRAME} a probe may use",
            feature="stack",
            hint="split it into several clauses",
        )
    return "\n".join(_lines(clauses, kind, context, frame, address_of))
