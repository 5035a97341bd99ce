"""Subroutines as assembly: mostly a shared routine with its arguments in rsi, rdx, rcx; some are an instruction or two.

``GUEST_CALLS`` names all that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from probekit.buffers.layout import FaultKind
from probekit.codegen.emit_context import EmitContext
from probekit.errors import InternalError
from probekit.ir.names import CALLS
from probekit.ir.ops import Call, Reg

__all__ = ("GUEST_CALLS", "call")

_ARGUMENTS = ("rsi", "rdx", "rcx")
_LAST = 0x7FFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Shared:
    """A routine: its name, what arguments that are missing are, and whether it can fault (kind in edx).

    ``flag``: r8d says whether the last argument is missing.
    """

    routine: str
    missing: tuple[int, ...] = ()
    faults: bool = False
    flag: bool = False


_SHARED: dict[str, _Shared] = {
    "basename": _Shared("basename"),
    "charat": _Shared("charat", faults=True),
    "cleanpath": _Shared("cleanpath"),
    "dirname": _Shared("dirname"),
    "index": _Shared("index", (0,)),
    "inet_ntoa": _Shared("inet_ntoa", faults=True),
    "inet_ntoa6": _Shared("inet_ntoa6", faults=True),
    "inet_ntop": _Shared("inet_ntop", faults=True),
    "json": _Shared("json"),
    "link_ntop": _Shared("link_ntop", faults=True),
    "lltostr": _Shared("lltostr", (10,), faults=True),
    "progenyof": _Shared("progenyof"),
    "rand": _Shared("rand"),
    "rindex": _Shared("rindex", (_LAST,)),
    "speculation": _Shared("speculation"),
    "strchr": _Shared("strchr"),
    "strjoin": _Shared("strjoin"),
    "strlen": _Shared("strlen"),
    "strrchr": _Shared("strrchr"),
    "strstr": _Shared("strstr"),
    "strtoll": _Shared("strtoll", (10,), faults=True),
    "substr": _Shared("substr", (0,), flag=True),
    "tolower": _Shared("tolower"),
    "toupper": _Shared("toupper"),
}


def _arguments(args: tuple[Reg, ...], emit: EmitContext) -> Iterator[str]:
    """The first may have been passed on in rax; no other may be."""
    for number, (register, reg) in enumerate(zip(_ARGUMENTS, args, strict=False)):
        yield from emit.operands.take(register, reg) if number == 0 else emit.operands.load(register, reg)


def _shared(op: Call, emit: EmitContext, how: _Shared) -> Iterator[str]:
    yield from _arguments(op.args, emit)
    info = CALLS[op.name]
    for register, value in zip(_ARGUMENTS[len(op.args) : len(info.args)], how.missing, strict=False):
        yield f"mov {register}, {value:#x}"
    if how.flag:
        yield f"mov r8d, {int(len(op.args) < len(info.args))}"
    if info.kind == "string":
        yield from emit.string_place(op.dst)
    yield emit.call(how.routine)
    if how.faults:
        yield f"jb {emit.fault(None)}"
    yield from emit.string_made(op.dst) if info.kind == "string" else emit.operands.set(op.dst)


def _strtok(op: Call, emit: EmitContext) -> Iterator[str]:
    yield from _shared(op, emit, _Shared("strtok" if len(op.args) == 2 else "strtok_more"))


# What needs no routine.


def _one(*lines: str) -> Callable[[Call, EmitContext], Iterator[str]]:
    """rax to rax."""

    def emit(op: Call, emit: EmitContext) -> Iterator[str]:
        yield from emit.operands.take("rax", op.args[0])
        yield from lines
        yield from emit.operands.set(op.dst)

    return emit


# Scratch memory and copies.


def _alloca(op: Call, emit: EmitContext) -> Iterator[str]:
    yield from emit.operands.take("rsi", op.args[0])
    yield emit.call("alloca")
    yield f"jb {emit.fault(None)}"
    yield from emit.operands.set(op.dst)


def _copyin(op: Call, emit: EmitContext) -> Iterator[str]:
    address, size = op.args
    place = f"qword ptr {emit.scratch(emit.context.scratch.temp)}"
    yield from emit.operands.take("rcx", address)
    yield f"mov {place}, rcx"
    yield from emit.operands.load("rsi", size)
    yield emit.call("alloca")
    yield f"jb {emit.fault(None)}"
    yield "mov rdi, rax"
    yield f"mov qword ptr {emit.scratch(emit.context.scratch.temp + 8)}, rax"
    yield from emit.operands.load("rcx", size)
    yield f"mov rsi, {place}"
    yield emit.call("user_bytes")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield f"mov rax, qword ptr {emit.scratch(emit.context.scratch.temp + 8)}"
    yield from emit.operands.set(op.dst)


def _copyinto(op: Call, emit: EmitContext) -> Iterator[str]:
    source, size, target = op.args
    yield from emit.operands.take("rsi", source)
    yield from emit.operands.load("rcx", size)
    yield from emit.operands.load("rdi", target)
    yield emit.call("in_memory")
    yield "mov rax, rdi"
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield emit.call("user_bytes")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield "xor eax, eax"
    yield from emit.operands.set(op.dst)


def _copyinstr(op: Call, emit: EmitContext) -> Iterator[str]:
    label = emit.unique()
    size = emit.context.program.string_size
    yield from emit.operands.take("rsi", op.args[0])
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
    yield from emit.string_place(op.dst)
    yield emit.call("user_text")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield from emit.string_made(op.dst)


def _copyout(op: Call, emit: EmitContext) -> Iterator[str]:
    """All of it is read before the first byte is written, into memory that ``alloca()`` gives for the moment."""
    source, target, size = op.args
    free = f"qword ptr {emit.scratch(emit.context.scratch.free)}"
    kept = f"qword ptr {emit.scratch(emit.context.scratch.temp)}"
    yield from emit.operands.take("rcx", source)
    yield f"mov {kept}, rcx"
    yield from emit.operands.load("rsi", size)
    yield emit.call("alloca")
    yield f"jb {emit.fault(None)}"
    yield f"mov {free}, rax"
    yield "mov rdi, rax"
    yield f"mov rsi, {kept}"
    yield from emit.operands.load("rcx", size)
    yield emit.call("load_bytes")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield f"mov rsi, {free}"
    yield from emit.operands.load("rdx", size)
    yield from emit.operands.load("rdi", target)
    yield from _put(op, emit)


def _copyoutstr(op: Call, emit: EmitContext) -> Iterator[str]:
    """The string with its NUL, or as many bytes as there may be."""
    source, target, most = op.args
    label = emit.unique()
    bounce = emit.scratch(emit.context.scratch.bounce)
    yield from emit.operands.take("rsi", source)
    yield f"lea rdi, {bounce}"
    yield f"mov ecx, {emit.context.program.string_size - 1:#x}"
    yield emit.call("load_text")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield f"lea rsi, {bounce}"
    yield emit.call("strlen")
    yield "lea edx, [rax + 1]"
    yield from emit.operands.load("rcx", most)
    yield "cmp rdx, rcx"
    yield f"jbe {label}"
    yield "mov rdx, rcx"
    yield f"{label}:"
    yield from emit.operands.load("rdi", target)
    yield from _put(op, emit)


def _put(op: Call, emit: EmitContext) -> Iterator[str]:
    yield emit.call("user_put")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield "xor eax, eax"
    yield from emit.operands.set(op.dst)


def _d_path(op: Call, emit: EmitContext) -> Iterator[str]:
    yield from emit.operands.take("rsi", op.args[0])
    yield from emit.string_place(op.dst)
    yield emit.call("d_path")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield from emit.string_made(op.dst)


def _bcopy(op: Call, emit: EmitContext) -> Iterator[str]:
    source, target, size = op.args
    yield from emit.operands.take("rsi", source)
    yield from emit.operands.load("rdi", target)
    yield from emit.operands.load("rcx", size)
    yield emit.call("bcopy")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield "xor eax, eax"
    yield from emit.operands.set(op.dst)


def _stack(op: Call, emit: EmitContext) -> Iterator[str]:
    frames = emit.operands.values.constants[op.args[0]]
    if not isinstance(frames, int):
        raise InternalError("a number of frames is not constant")
    yield from emit.string_place(op.dst)
    yield f"mov ecx, {frames:#x}"
    yield emit.call(emit.unwinder)
    yield from emit.string_made(op.dst)


_OTHERS: dict[str, Callable[[Call, EmitContext], Iterator[str]]] = {
    "alloca": _alloca,
    "bcopy": _bcopy,
    "copyin": _copyin,
    "copyinstr": _copyinstr,
    "copyinto": _copyinto,
    "copyout": _copyout,
    "copyoutstr": _copyoutstr,
    "d_path": _d_path,
    "getmajor": _one("shr rax, 20", "and eax, 0xfff"),
    "getminor": _one("and eax, 0xfffff"),
    "htonl": _one("bswap eax"),
    "htonll": _one("bswap rax"),
    "htons": _one("movzx eax, ax", "bswap eax", "shr eax, 16"),
    "ntohl": _one("bswap eax"),
    "ntohll": _one("bswap rax"),
    "ntohs": _one("movzx eax, ax", "bswap eax", "shr eax, 16"),
    "stack": _stack,
    "strtok": _strtok,
}

GUEST_CALLS = frozenset((*_SHARED, *_OTHERS))
"""The subroutines that code in the guest has."""


def call(op: Call, emit: EmitContext) -> Iterator[str]:
    """Assembly for one :class:`Call` of ``GUEST_CALLS``."""
    if op.name in _SHARED:
        yield from _shared(op, emit, _SHARED[op.name])
    else:
        yield from _OTHERS[op.name](op, emit)
