"""Write the code of subroutines: mostly the call of a shared routine, sometimes an instruction or two.

Arguments of a routine are in rsi, rdx, rcx. :data:`GUEST_SUBROUTINES` names all subroutines that code in the guest has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from probekit.buffers.layout import FaultKind
from probekit.codegen.emit_context import EmitContext
from probekit.errors import InternalError
from probekit.ir.names import CALLS
from probekit.ir.ops import CallSubroutine, Reg

__all__ = ("GUEST_SUBROUTINES", "call_subroutine")

_ARGUMENT_REGISTERS = ("rsi", "rdx", "rcx")
_MAX_INT = 0x7FFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class _RoutineCall:
    """How a subroutine calls its routine."""

    routine: str
    """The routine's name."""
    defaults: tuple[int, ...] = ()
    """The values of optional arguments that are missing."""
    faults: bool = False
    """True when the routine can fault; the kind is in edx then."""
    length_flag: bool = False
    """True when r8d says whether the last argument is missing."""


_ROUTINE_CALLS: dict[str, _RoutineCall] = {
    "basename": _RoutineCall("basename"),
    "charat": _RoutineCall("charat", faults=True),
    "cleanpath": _RoutineCall("cleanpath"),
    "dirname": _RoutineCall("dirname"),
    "index": _RoutineCall("index", (0,)),
    "inet_ntoa": _RoutineCall("inet_ntoa", faults=True),
    "inet_ntoa6": _RoutineCall("inet_ntoa6", faults=True),
    "inet_ntop": _RoutineCall("inet_ntop", faults=True),
    "json": _RoutineCall("json"),
    "link_ntop": _RoutineCall("link_ntop", faults=True),
    "lltostr": _RoutineCall("lltostr", (10,), faults=True),
    "progenyof": _RoutineCall("progenyof"),
    "rand": _RoutineCall("rand"),
    "rindex": _RoutineCall("rindex", (_MAX_INT,)),
    "setchar": _RoutineCall("setchar", faults=True),
    "speculation": _RoutineCall("speculation"),
    "strchr": _RoutineCall("strchr"),
    "strjoin": _RoutineCall("strjoin"),
    "strlen": _RoutineCall("strlen"),
    "strrchr": _RoutineCall("strrchr"),
    "strstr": _RoutineCall("strstr"),
    "strtoll": _RoutineCall("strtoll", (10,), faults=True),
    "substr": _RoutineCall("substr", (0,), length_flag=True),
    "tolower": _RoutineCall("tolower"),
    "toupper": _RoutineCall("toupper"),
}


def _load_arguments(args: tuple[Reg, ...], emit: EmitContext) -> Iterator[str]:
    """Load the arguments. Only the first may have been passed on in rax."""
    for number, (register, reg) in enumerate(zip(_ARGUMENT_REGISTERS, args, strict=False)):
        yield from emit.operands.load_first(register, reg) if number == 0 else emit.operands.load(register, reg)


def _call_routine(op: CallSubroutine, emit: EmitContext, call: _RoutineCall) -> Iterator[str]:
    yield from _load_arguments(op.args, emit)
    info = CALLS[op.name]
    for register, value in zip(_ARGUMENT_REGISTERS[len(op.args) : len(info.args)], call.defaults, strict=False):
        yield f"mov {register}, {value:#x}"
    if call.length_flag:
        yield f"mov r8d, {int(len(op.args) < len(info.args))}"
    if info.kind == "string":
        yield from emit.load_string_destination(op.dst)
    yield emit.call_routine(call.routine)
    if call.faults:
        yield f"jb {emit.fault_label(None)}"
    yield from emit.set_string_result(op.dst) if info.kind == "string" else emit.operands.set_from_rax(op.dst)


def _strtok(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    yield from _call_routine(op, emit, _RoutineCall("strtok" if len(op.args) == 2 else "strtok_more"))


# Subroutines that need no routine.


def _inline(*lines: str) -> Callable[[CallSubroutine, EmitContext], Iterator[str]]:
    """Return a writer of code that computes rax from rax."""

    def write(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
        yield from emit.operands.load_first("rax", op.args[0])
        yield from lines
        yield from emit.operands.set_from_rax(op.dst)

    return write


# Scratch memory and copies.


def _alloca(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    yield from emit.operands.load_first("rsi", op.args[0])
    yield emit.call_routine("alloca")
    yield f"jb {emit.fault_label(None)}"
    yield from emit.operands.set_from_rax(op.dst)


def _copyin(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    address, size = op.args
    address_word = f"qword ptr {emit.scratch_operand(emit.context.scratch.temp)}"
    yield from emit.operands.load_first("rcx", address)
    yield f"mov {address_word}, rcx"
    yield from emit.operands.load("rsi", size)
    yield emit.call_routine("alloca")
    yield f"jb {emit.fault_label(None)}"
    yield "mov rdi, rax"
    yield f"mov qword ptr {emit.scratch_operand(emit.context.scratch.temp + 8)}, rax"
    yield from emit.operands.load("rcx", size)
    yield f"mov rsi, {address_word}"
    yield emit.call_routine("copy_from_user")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield f"mov rax, qword ptr {emit.scratch_operand(emit.context.scratch.temp + 8)}"
    yield from emit.operands.set_from_rax(op.dst)


def _copyinto(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    source, size, target = op.args
    yield from emit.operands.load_first("rsi", source)
    yield from emit.operands.load("rcx", size)
    yield from emit.operands.load("rdi", target)
    yield emit.call_routine("in_alloca")
    yield "mov rax, rdi"
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield emit.call_routine("copy_from_user")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield "xor eax, eax"
    yield from emit.operands.set_from_rax(op.dst)


def _copyinstr(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    label = emit.new_label()
    size = emit.context.program.string_size
    yield from emit.operands.load_first("rsi", op.args[0])
    yield f"mov ecx, {size:#x}"
    if len(op.args) == 2:
        yield from emit.operands.load("rax", op.args[1])
        yield f"cmp rax, {size:#x}"
        yield f"jae {label}"
        yield "lea ecx, [rax + 1]"
        yield f"cmp ecx, {size:#x}"
        yield f"jbe {label}"
        yield f"mov ecx, {size:#x}"
        yield f"{label}:"
    yield from emit.load_string_destination(op.dst)
    yield emit.call_routine("string_from_user")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield from emit.set_string_result(op.dst)


def _copyout(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    """Read everything, into memory that ``alloca()`` lends, before the first byte is written."""
    source, target, size = op.args
    alloca_next = f"qword ptr {emit.scratch_operand(emit.context.scratch.alloca_next)}"
    source_word = f"qword ptr {emit.scratch_operand(emit.context.scratch.temp)}"
    yield from emit.operands.load_first("rcx", source)
    yield f"mov {source_word}, rcx"
    yield from emit.operands.load("rsi", size)
    yield emit.call_routine("alloca")
    yield f"jb {emit.fault_label(None)}"
    yield f"mov {alloca_next}, rax"
    yield "mov rdi, rax"
    yield f"mov rsi, {source_word}"
    yield from emit.operands.load("rcx", size)
    yield emit.call_routine("load_bytes")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield f"mov rsi, {alloca_next}"
    yield from emit.operands.load("rdx", size)
    yield from emit.operands.load("rdi", target)
    yield from _copy_to_user(op, emit)


def _copyoutstr(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    """Write the string with its NUL, or as many of these bytes as the last argument allows."""
    source, target, most = op.args
    label = emit.new_label()
    bounce = emit.scratch_operand(emit.context.scratch.bounce)
    yield from emit.operands.load_first("rsi", source)
    yield f"lea rdi, {bounce}"
    yield f"mov ecx, {emit.context.program.string_size - 1:#x}"
    yield emit.call_routine("load_string")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield f"lea rsi, {bounce}"
    yield emit.call_routine("strlen")
    yield "lea edx, [rax + 1]"
    yield from emit.operands.load("rcx", most)
    yield "cmp rdx, rcx"
    yield f"jbe {label}"
    yield "mov rdx, rcx"
    yield f"{label}:"
    yield from emit.operands.load("rdi", target)
    yield from _copy_to_user(op, emit)


def _copy_to_user(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    yield emit.call_routine("copy_to_user")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield "xor eax, eax"
    yield from emit.operands.set_from_rax(op.dst)


def _d_path(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    yield from emit.operands.load_first("rsi", op.args[0])
    yield from emit.load_string_destination(op.dst)
    yield emit.call_routine("d_path")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield from emit.set_string_result(op.dst)


def _bcopy(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    source, target, size = op.args
    yield from emit.operands.load_first("rsi", source)
    yield from emit.operands.load("rdi", target)
    yield from emit.operands.load("rcx", size)
    yield emit.call_routine("bcopy")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield "xor eax, eax"
    yield from emit.operands.set_from_rax(op.dst)


def _stack(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    frames = emit.operands.allocation.constants[op.args[0]]
    if not isinstance(frames, int):
        raise InternalError("the number of frames of stack() is no integer constant")
    yield from emit.load_string_destination(op.dst)
    yield f"mov ecx, {frames:#x}"
    yield emit.call_routine(emit.unwind_routine)
    yield from emit.set_string_result(op.dst)


_WRITERS: dict[str, Callable[[CallSubroutine, EmitContext], Iterator[str]]] = {
    "alloca": _alloca,
    "bcopy": _bcopy,
    "copyin": _copyin,
    "copyinstr": _copyinstr,
    "copyinto": _copyinto,
    "copyout": _copyout,
    "copyoutstr": _copyoutstr,
    "d_path": _d_path,
    "getmajor": _inline("shr rax, 20", "and eax, 0xfff"),
    "getminor": _inline("and eax, 0xfffff"),
    "htonl": _inline("bswap eax"),
    "htonll": _inline("bswap rax"),
    "htons": _inline("movzx eax, ax", "bswap eax", "shr eax, 16"),
    "ntohl": _inline("bswap eax"),
    "ntohll": _inline("bswap rax"),
    "ntohs": _inline("movzx eax, ax", "bswap eax", "shr eax, 16"),
    "stack": _stack,
    "strtok": _strtok,
}

GUEST_SUBROUTINES = frozenset((*_ROUTINE_CALLS, *_WRITERS))
"""The subroutines that code in the guest has."""


def call_subroutine(op: CallSubroutine, emit: EmitContext) -> Iterator[str]:
    """Write the code of a call. Its subroutine is one of :data:`GUEST_SUBROUTINES`."""
    if op.name in _ROUTINE_CALLS:
        yield from _call_routine(op, emit, _ROUTINE_CALLS[op.name])
    else:
        yield from _WRITERS[op.name](op, emit)
