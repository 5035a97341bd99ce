"""Operations on memory and on variables as assembly.

r1 = load 4, r0      mov rax, [rsp]; call load_4; jb fault; movsxd rax, eax; mov [rsp+8], rax
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from probekit.buffers.layout import FaultKind
from probekit.buffers.variables import round8
from probekit.codegen.emit_context import EmitContext
from probekit.codegen.operands import fits
from probekit.errors import InternalError
from probekit.ir.ops import (
    Copy,
    CopyMem,
    ElemAddr,
    LoadElem,
    LoadMem,
    LoadStr,
    LoadVar,
    Reg,
    StoreElem,
    StoreMem,
    StoreStr,
    StoreVar,
    StrAddr,
    VarAddr,
    Variable,
)

__all__ = ("Locals", "MemoryOp", "VariableOp", "load_memory", "memory_op", "variable_op")

Locals = dict[int, int]
"""Integers of ``this->``: variable to its offset in the frame."""

MemoryOp = LoadMem | StoreMem | LoadStr | StoreStr | StrAddr | CopyMem | Copy
VariableOp = LoadVar | StoreVar | VarAddr | LoadElem | StoreElem | ElemAddr

_SIGNED = {1: "movsx rax, al", 2: "movsx rax, ax", 4: "movsxd rax, eax"}
_STORE = {1: "mov byte ptr [rdi], al", 2: "mov word ptr [rdi], ax", 4: "mov dword ptr [rdi], eax"}


def memory_op(op: MemoryOp, emit: EmitContext) -> Iterator[str]:
    """Reading and writing through pointers."""
    operands = emit.operands
    match op:
        case LoadMem(dst=dst, addr=addr, size=size, signed=signed):
            yield from operands.take("rax", addr)
            yield emit.call(f"load_{size}")
            yield f"jb {emit.fault(FaultKind.BADADDR)}"
            if signed and size in _SIGNED:
                yield _SIGNED[size]
            yield from operands.set(dst)
        case StoreMem(addr=addr, src=src, size=size):
            yield from operands.take("rdi", addr)
            yield from _may_store(size, emit)
            yield from operands.load("rax", src)
            yield _STORE.get(size, "mov qword ptr [rdi], rax")
            operands.held = None
        case LoadStr(dst=dst, addr=addr, limit=limit):
            most = emit.context.program.string_size - 1
            yield from operands.take("rsi", addr)
            yield from emit.string_place(dst)
            yield f"mov ecx, {min(limit, most) if limit else most:#x}"
            yield emit.call("load_text")
            yield f"jb {emit.fault(FaultKind.BADADDR)}"
            yield from emit.string_made(dst)
        case StoreStr(addr=addr, src=src, size=size):
            yield from operands.take("rdi", addr)
            if size:
                yield from _may_store(size, emit)
                yield from operands.load("rsi", src)
                yield f"mov ecx, {size:#x}"
                yield emit.call("copy")
            operands.held = None
        case StrAddr(dst=dst, src=src):
            # All of it, however long a constant is.
            yield from operands.take("rsi", src)
            yield from emit.string_place(dst)
            yield f"mov ecx, {emit.operands.values.longest:#x}"
            yield emit.call("copy")
            yield from emit.string_made(dst)
        case Copy(dst=dst, src=src):
            yield from operands.take("rax", src)
            yield from operands.set(dst)
        case CopyMem():
            yield from _copy_memory(op, emit)


def _may_store(size: int, emit: EmitContext) -> Iterator[str]:
    """On only when a script may write ``size`` bytes at rdi."""
    yield f"mov ecx, {size:#x}"
    yield emit.call("may_store")
    yield "mov rax, rdi"
    yield f"jb {emit.fault(FaultKind.BADADDR)}"


def _copy_memory(op: CopyMem, emit: EmitContext) -> Iterator[str]:
    """By way of the bounce buffer, as source and target may overlap. An element that is not there reads as zeros."""
    label = emit.unique()
    bounce = emit.scratch(emit.context.scratch.bounce)
    spill = f"qword ptr {emit.scratch(emit.context.scratch.temp)}"
    yield from emit.operands.take("rdi", op.target)
    if not op.size:
        emit.operands.held = None
        return
    yield f"mov {spill}, rdi"
    yield from emit.operands.load("rsi", op.source)
    yield f"lea rdi, {bounce}"
    yield f"mov ecx, {op.size:#x}"
    yield "test rsi, rsi"
    yield f"jz {label}_none"
    yield emit.call("load_bytes")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield f"jmp {label}_have"
    yield f"{label}_none:"
    yield f"mov ecx, {round8(op.size) // 8:#x}"
    yield emit.call("clear")
    yield f"{label}_have:"
    yield f"mov rdi, {spill}"
    yield from _may_store(op.size, emit)
    yield f"lea rsi, {bounce}"
    yield f"mov ecx, {op.size // 8:#x}"
    yield emit.call("words")
    for at, width in _tail(op.size):
        register = {4: "eax", 2: "ax", 1: "al"}[width]
        size = {4: "dword", 2: "word", 1: "byte"}[width]
        yield f"mov {register}, {size} ptr [rsi + {at:#x}]"
        yield f"mov {size} ptr [rdi + {at:#x}], {register}"
    emit.operands.held = None


def _tail(size: int) -> Iterator[tuple[int, int]]:
    at = 0
    for width in (4, 2, 1):
        if size & width:
            yield at, width
            at += width


def load_memory(addr: Reg, target: Iterable[str], size: int, emit: EmitContext) -> Iterator[str]:
    """``size`` bytes at a pointer to the place that ``target`` puts into rdi."""
    yield from emit.operands.take("rsi", addr)
    yield from target
    yield f"mov ecx, {size:#x}"
    yield emit.call("load_bytes")
    yield f"jb {emit.fault(FaultKind.BADADDR)}"


# Variables.


def variable_op(op: VariableOp, emit: EmitContext, locals_: Locals) -> Iterator[str]:
    """Reading and assigning variables, wherever they are."""
    variable = emit.context.program.variables[op.var]
    match op:
        case LoadVar(dst=dst) if variable.kind == "int":
            yield from _load_integer(variable, dst, emit, locals_)
        case StoreVar(src=src) if variable.kind == "int":
            yield from _store_integer(variable, src, emit, locals_)
        case LoadVar(dst=dst):
            yield from _load_text(variable, dst, emit)
        case StoreVar(src=src):
            yield from _store_text(variable, src, emit)
        case VarAddr(dst=dst):
            yield from _address(variable, "rax", emit, make=True)
            yield from emit.operands.set(dst)
        case LoadElem(dst=dst, keys=keys):
            yield from _key(variable, keys, emit)
            if variable.kind == "string":
                yield from emit.string_place(dst)
                yield f"mov edx, {max(variable.size, 1):#x}"
                yield emit.call("element_text")
                yield from emit.string_made(dst)
            else:
                yield emit.call("element_load")
                yield from emit.operands.set(dst)
        case StoreElem(keys=keys, src=src):
            yield from _key(variable, keys, emit)
            if variable.kind == "string":
                yield from emit.operands.load("rsi", src)
                yield f"mov edi, {variable.size:#x}"
                yield emit.call("element_keep")
            else:
                yield from emit.operands.load("rdx", src)
                yield emit.call("element_store")
            emit.operands.held = None
        case ElemAddr(dst=dst, keys=keys, create=create):
            yield from _key(variable, keys, emit)
            yield f"mov edi, {variable.size:#x}"
            yield emit.call("element_make" if create else "element_at")
            yield from emit.operands.set(dst)


def _global(variable: Variable, emit: EmitContext) -> int:
    return emit.context.activity + emit.context.storage.globals_[variable.index].offset


def _load_integer(variable: Variable, dst: Reg, emit: EmitContext, locals_: Locals) -> Iterator[str]:
    if variable.scope == "local":
        yield f"mov rax, qword ptr [rsp + {locals_[variable.index]:#x}]"
    elif variable.scope == "global":
        yield f"mov rcx, {_global(variable, emit):#x}"
        yield "mov rax, qword ptr [rcx]"
    else:
        label = emit.unique()
        yield emit.call("thread_find")
        yield "test rax, rax"
        yield f"jz {label}"
        yield f"mov rax, qword ptr [rax + {_place(variable, emit):#x}]"
        yield f"{label}:"
    yield from emit.operands.set(dst)


def _store_integer(variable: Variable, src: Reg, emit: EmitContext, locals_: Locals) -> Iterator[str]:
    operands = emit.operands
    if variable.scope == "local":
        yield from operands.store(f"[rsp + {locals_[variable.index]:#x}]", src)
    elif variable.scope == "global":
        yield f"mov rcx, {_global(variable, emit):#x}"
        yield from operands.store("[rcx]", src)
    else:
        yield from operands.take("rdx", src)
        yield f"mov edi, {_place(variable, emit):#x}"
        yield emit.call("thread_store")
    operands.held = None


def _place(variable: Variable, emit: EmitContext) -> int:
    """A thread variable's offset in its entry."""
    threads = emit.context.storage.threads
    if threads is None:
        raise InternalError("a thread-local variable has no table")
    return threads.places[variable.index].offset


def _address(variable: Variable, into: str, emit: EmitContext, *, make: bool) -> Iterator[str]:
    """``into`` (rax for ``self->``) = where a string or object lies; 0 for a thread that has none."""
    match variable.scope:
        case "global":
            yield f"mov {into}, {_global(variable, emit):#x}"
        case "local":
            yield f"lea {into}, {emit.scratch(emit.context.scratch.places[variable.index].offset)}"
        case "self":
            label = emit.unique()
            yield emit.call("thread_make" if make else "thread_find")
            yield "test rax, rax"
            yield f"jz {label}"
            yield f"add rax, {_place(variable, emit):#x}"
            yield f"{label}:"
            if into != "rax":
                yield f"mov {into}, rax"


def _load_text(variable: Variable, dst: Reg, emit: EmitContext) -> Iterator[str]:
    """A copy, as the variable may change before the value is used; none where the next operation uses it."""
    yield from _address(variable, "rax", emit, make=False)
    if variable.scope == "self":
        label = emit.unique()
        yield "test rax, rax"
        yield f"jnz {label}"
        yield f"mov rax, {emit.context.strings:#x}"  # the pool begins with an empty string
        yield f"{label}:"
    if dst in emit.operands.values.direct:
        yield from emit.operands.set(dst)
        return
    yield "mov rsi, rax"
    yield from emit.string_place(dst)
    yield f"mov ecx, {max(variable.size, 1):#x}"
    yield emit.call("copy")
    yield from emit.string_made(dst)


def _store_text(variable: Variable, src: Reg, emit: EmitContext) -> Iterator[str]:
    operands = emit.operands
    if variable.scope != "self":
        yield from operands.take("rsi", src)
        yield from _address(variable, "rdi", emit, make=True)
    else:
        label = emit.unique()
        yield from operands.take("rdi", src)
        # An empty string needs no entry.
        yield emit.call("thread_find")
        yield "test rax, rax"
        yield f"jnz {label}_there"
        yield "cmp byte ptr [rdi], 0"
        yield f"je {label}_none"
        yield emit.call("thread_make")
        yield "test rax, rax"
        yield f"jz {label}_none"
        yield f"{label}_there:"
        yield "mov rsi, rdi"
        yield f"lea rdi, [rax + {_place(variable, emit):#x}]"
    yield f"mov ecx, {variable.size:#x}"
    yield emit.call("copy")
    if variable.scope == "self":
        yield f"{label}_none:"
    operands.held = None


def _key(variable: Variable, keys: tuple[Reg, ...], emit: EmitContext) -> Iterator[str]:
    """The key of an element in the scratch memory; ecx = its words."""
    context, operands = emit.context, emit.operands
    at = context.scratch.key
    yield f"mov qword ptr {emit.scratch(at)}, {variable.index}"
    at += 8
    first = at + (16 if variable.scope == "self" else 0)
    place = first
    for number, (kind, reg) in enumerate(zip(variable.keys or (), keys, strict=True)):
        if number:
            operands.held = None
        if kind == "string":
            size = round8(context.program.string_size)
            yield from operands.take("rsi", reg)
            yield f"lea rdi, {emit.scratch(place)}"
            # The same bytes whatever the size: cut where strings are, zeros behind.
            yield f"mov qword ptr {emit.scratch(place + size - 8)}, 0"
            yield f"mov ecx, {context.program.string_size:#x}"
            yield emit.call("copy")
            place += size
        else:
            constant = operands.constant(reg)
            if constant is not None and fits(constant):
                yield f"mov qword ptr {emit.scratch(place)}, {constant:#x}"
            else:
                yield from operands.take("rax", reg)
                yield f"mov qword ptr {emit.scratch(place)}, rax"
            place += 8
    if variable.scope == "self":
        yield emit.call("self_key")
    yield f"mov ecx, {(place - context.scratch.key) // 8:#x}"
    operands.held = None
