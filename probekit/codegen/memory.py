"""Operations on memory and on variables as assembly.

r1 = load 4, r0      mov rax, [rsp]; call load_4; jb fault; movsxd rax, eax; mov [rsp+8], rax
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from probekit.buffers.layout import FaultKind
from probekit.buffers.variables import round8
from probekit.codegen.emit_context import Here
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


def memory_op(op: MemoryOp, here: Here) -> Iterator[str]:
    """Reading and writing through pointers."""
    operands = here.operands
    match op:
        case LoadMem(dst=dst, addr=addr, size=size, signed=signed):
            yield from operands.take("rax", addr)
            yield here.call(f"load_{size}")
            yield f"jb {here.fault(FaultKind.BADADDR)}"
            if signed and size in _SIGNED:
                yield _SIGNED[size]
            yield from operands.set(dst)
        case StoreMem(addr=addr, src=src, size=size):
            yield from operands.take("rdi", addr)
            yield from _may_store(size, here)
            yield from operands.load("rax", src)
            yield _STORE.get(size, "mov qword ptr [rdi], rax")
            operands.held = None
        case LoadStr(dst=dst, addr=addr, limit=limit):
            most = here.context.program.string_size - 1
            yield from operands.take("rsi", addr)
            yield from here.target(dst)
            yield f"mov ecx, {min(limit, most) if limit else most:#x}"
            yield here.call("load_text")
            yield f"jb {here.fault(FaultKind.BADADDR)}"
            yield from here.made(dst)
        case StoreStr(addr=addr, src=src, size=size):
            yield from operands.take("rdi", addr)
            if size:
                yield from _may_store(size, here)
                yield from operands.load("rsi", src)
                yield f"mov ecx, {size:#x}"
                yield here.call("copy")
            operands.held = None
        case StrAddr(dst=dst, src=src):
            # All of it, however long a constant is.
            yield from operands.take("rsi", src)
            yield from here.target(dst)
            yield f"mov ecx, {here.operands.values.longest:#x}"
            yield here.call("copy")
            yield from here.made(dst)
        case Copy(dst=dst, src=src):
            yield from operands.take("rax", src)
            yield from operands.set(dst)
        case CopyMem():
            yield from _copy_memory(op, here)


def _may_store(size: int, here: Here) -> Iterator[str]:
    """On only when a script may write ``size`` bytes at rdi."""
    yield f"mov ecx, {size:#x}"
    yield here.call("may_store")
    yield "mov rax, rdi"
    yield f"jb {here.fault(FaultKind.BADADDR)}"


def _copy_memory(op: CopyMem, here: Here) -> Iterator[str]:
    """By way of the bounce buffer, as source and target may overlap. An element that is not there reads as zeros."""
    label = here.unique()
    bounce = here.scratch(here.context.scratch.bounce)
    spill = f"qword ptr {here.scratch(here.context.scratch.temp)}"
    yield from here.operands.take("rdi", op.target)
    if not op.size:
        here.operands.held = None
        return
    yield f"mov {spill}, rdi"
    yield from here.operands.load("rsi", op.source)
    yield f"lea rdi, {bounce}"
    yield f"mov ecx, {op.size:#x}"
    yield "test rsi, rsi"
    yield f"jz {label}_none"
    yield here.call("load_bytes")
    yield f"jb {here.fault(FaultKind.BADADDR)}"
    yield f"jmp {label}_have"
    yield f"{label}_none:"
    yield f"mov ecx, {round8(op.size) // 8:#x}"
    yield here.call("clear")
    yield f"{label}_have:"
    yield f"mov rdi, {spill}"
    yield from _may_store(op.size, here)
    yield f"lea rsi, {bounce}"
    yield f"mov ecx, {op.size // 8:#x}"
    yield here.call("words")
    for at, width in _tail(op.size):
        register = {4: "eax", 2: "ax", 1: "al"}[width]
        size = {4: "dword", 2: "word", 1: "byte"}[width]
        yield f"mov {register}, {size} ptr [rsi + {at:#x}]"
        yield f"mov {size} ptr [rdi + {at:#x}], {register}"
    here.operands.held = None


def _tail(size: int) -> Iterator[tuple[int, int]]:
    at = 0
    for width in (4, 2, 1):
        if size & width:
            yield at, width
            at += width


def load_memory(addr: Reg, target: Iterable[str], size: int, here: Here) -> Iterator[str]:
    """``size`` bytes at a pointer to the place that ``target`` puts into rdi."""
    yield from here.operands.take("rsi", addr)
    yield from target
    yield f"mov ecx, {size:#x}"
    yield here.call("load_bytes")
    yield f"jb {here.fault(FaultKind.BADADDR)}"


# Variables.


def variable_op(op: VariableOp, here: Here, locals_: Locals) -> Iterator[str]:
    """Reading and assigning variables, wherever they are."""
    variable = here.context.program.variables[op.var]
    match op:
        case LoadVar(dst=dst) if variable.kind == "int":
            yield from _load_integer(variable, dst, here, locals_)
        case StoreVar(src=src) if variable.kind == "int":
            yield from _store_integer(variable, src, here, locals_)
        case LoadVar(dst=dst):
            yield from _load_text(variable, dst, here)
        case StoreVar(src=src):
            yield from _store_text(variable, src, here)
        case VarAddr(dst=dst):
            yield from _address(variable, "rax", here, make=True)
            yield from here.operands.set(dst)
        case LoadElem(dst=dst, keys=keys):
            yield from _key(variable, keys, here)
            if variable.kind == "string":
                yield from here.target(dst)
                yield f"mov edx, {max(variable.size, 1):#x}"
                yield here.call("element_text")
                yield from here.made(dst)
            else:
                yield here.call("element_load")
                yield from here.operands.set(dst)
        case StoreElem(keys=keys, src=src):
            yield from _key(variable, keys, here)
            if variable.kind == "string":
                yield from here.operands.load("rsi", src)
                yield f"mov edi, {variable.size:#x}"
                yield here.call("element_keep")
            else:
                yield from here.operands.load("rdx", src)
                yield here.call("element_store")
            here.operands.held = None
        case ElemAddr(dst=dst, keys=keys, create=create):
            yield from _key(variable, keys, here)
            yield f"mov edi, {variable.size:#x}"
            yield here.call("element_make" if create else "element_at")
            yield from here.operands.set(dst)


def _global(variable: Variable, here: Here) -> int:
    return here.context.activity + here.context.storage.globals_[variable.index].offset


def _load_integer(variable: Variable, dst: Reg, here: Here, locals_: Locals) -> Iterator[str]:
    if variable.scope == "local":
        yield f"mov rax, qword ptr [rsp + {locals_[variable.index]:#x}]"
    elif variable.scope == "global":
        yield f"mov rcx, {_global(variable, here):#x}"
        yield "mov rax, qword ptr [rcx]"
    else:
        label = here.unique()
        yield here.call("thread_find")
        yield "test rax, rax"
        yield f"jz {label}"
        yield f"mov rax, qword ptr [rax + {_place(variable, here):#x}]"
        yield f"{label}:"
    yield from here.operands.set(dst)


def _store_integer(variable: Variable, src: Reg, here: Here, locals_: Locals) -> Iterator[str]:
    operands = here.operands
    if variable.scope == "local":
        yield from operands.store(f"[rsp + {locals_[variable.index]:#x}]", src)
    elif variable.scope == "global":
        yield f"mov rcx, {_global(variable, here):#x}"
        yield from operands.store("[rcx]", src)
    else:
        yield from operands.take("rdx", src)
        yield f"mov edi, {_place(variable, here):#x}"
        yield here.call("thread_store")
    operands.held = None


def _place(variable: Variable, here: Here) -> int:
    """A thread variable's offset in its entry."""
    threads = here.context.storage.threads
    if threads is None:
        raise InternalError("a thread-local variable has no table")
    return threads.places[variable.index].offset


def _address(variable: Variable, into: str, here: Here, *, make: bool) -> Iterator[str]:
    """``into`` (rax for ``self->``) = where a string or object lies; 0 for a thread that has none."""
    match variable.scope:
        case "global":
            yield f"mov {into}, {_global(variable, here):#x}"
        case "local":
            yield f"lea {into}, {here.scratch(here.context.scratch.places[variable.index].offset)}"
        case "self":
            label = here.unique()
            yield here.call("thread_make" if make else "thread_find")
            yield "test rax, rax"
            yield f"jz {label}"
            yield f"add rax, {_place(variable, here):#x}"
            yield f"{label}:"
            if into != "rax":
                yield f"mov {into}, rax"


def _load_text(variable: Variable, dst: Reg, here: Here) -> Iterator[str]:
    """A copy, as the variable may change before the value is used; none where the next operation uses it."""
    yield from _address(variable, "rax", here, make=False)
    if variable.scope == "self":
        label = here.unique()
        yield "test rax, rax"
        yield f"jnz {label}"
        yield f"mov rax, {here.context.strings:#x}"  # the pool begins with an empty string
        yield f"{label}:"
    if dst in here.operands.values.direct:
        yield from here.operands.set(dst)
        return
    yield "mov rsi, rax"
    yield from here.target(dst)
    yield f"mov ecx, {max(variable.size, 1):#x}"
    yield here.call("copy")
    yield from here.made(dst)


def _store_text(variable: Variable, src: Reg, here: Here) -> Iterator[str]:
    operands = here.operands
    if variable.scope != "self":
        yield from operands.take("rsi", src)
        yield from _address(variable, "rdi", here, make=True)
    else:
        label = here.unique()
        yield from operands.take("rdi", src)
        # An empty string needs no entry.
        yield here.call("thread_find")
        yield "test rax, rax"
        yield f"jnz {label}_there"
        yield "cmp byte ptr [rdi], 0"
        yield f"je {label}_none"
        yield here.call("thread_make")
        yield "test rax, rax"
        yield f"jz {label}_none"
        yield f"{label}_there:"
        yield "mov rsi, rdi"
        yield f"lea rdi, [rax + {_place(variable, here):#x}]"
    yield f"mov ecx, {variable.size:#x}"
    yield here.call("copy")
    if variable.scope == "self":
        yield f"{label}_none:"
    operands.held = None


def _key(variable: Variable, keys: tuple[Reg, ...], here: Here) -> Iterator[str]:
    """The key of an element in the scratch memory; ecx = its words."""
    context, operands = here.context, here.operands
    at = context.scratch.key
    yield f"mov qword ptr {here.scratch(at)}, {variable.index}"
    at += 8
    first = at + (16 if variable.scope == "self" else 0)
    place = first
    for number, (kind, reg) in enumerate(zip(variable.keys or (), keys, strict=True)):
        if number:
            operands.held = None
        if kind == "string":
            size = round8(context.program.string_size)
            yield from operands.take("rsi", reg)
            yield f"lea rdi, {here.scratch(place)}"
            # The same bytes whatever the size: cut where strings are, zeros behind.
            yield f"mov qword ptr {here.scratch(place + size - 8)}, 0"
            yield f"mov ecx, {context.program.string_size:#x}"
            yield here.call("copy")
            place += size
        else:
            constant = operands.constant(reg)
            if constant is not None and fits(constant):
                yield f"mov qword ptr {here.scratch(place)}, {constant:#x}"
            else:
                yield from operands.take("rax", reg)
                yield f"mov qword ptr {here.scratch(place)}, rax"
            place += 8
    if variable.scope == "self":
        yield here.call("self_key")
    yield f"mov ecx, {(place - context.scratch.key) // 8:#x}"
    operands.held = None
