"""Write the code of operations on memory and on variables.

r1 = load 4, r0      mov rax, [rsp]; call load_4; jb fault; movsxd rax, eax; mov [rsp+8], rax
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from probekit.buffers.layout import FaultKind
from probekit.buffers.variables import round8
from probekit.codegen.emit_context import EmitContext
from probekit.codegen.operands import fits_immediate
from probekit.errors import required
from probekit.ir.ops import (
    Copy,
    CopyMem,
    ElemAddress,
    LoadElem,
    LoadMem,
    LoadStr,
    LoadVar,
    Reg,
    StoreElem,
    StoreMem,
    StoreStr,
    StoreVar,
    StrAddress,
    VarAddress,
    Variable,
)

__all__ = ("Locals", "MemoryOp", "VariableOp", "load_memory", "memory_op", "variable_op")

Locals = dict[int, int]
"""The offset in the frame of each integer of ``this->``, by the variable's index."""

MemoryOp = LoadMem | StoreMem | LoadStr | StoreStr | StrAddress | CopyMem | Copy
VariableOp = LoadVar | StoreVar | VarAddress | LoadElem | StoreElem | ElemAddress

_SIGN_EXTEND = {1: "movsx rax, al", 2: "movsx rax, ax", 4: "movsxd rax, eax"}
_STORE = {1: "mov byte ptr [rdi], al", 2: "mov word ptr [rdi], ax", 4: "mov dword ptr [rdi], eax"}


def memory_op(op: MemoryOp, emit: EmitContext) -> Iterator[str]:
    """Write the code of an operation that reads or writes through a pointer, or copies a string."""
    operands = emit.operands
    match op:
        case LoadMem(dst=dst, addr=addr, size=size, signed=signed):
            yield from operands.load_first("rax", addr)
            yield emit.call_routine(f"load_{size}")
            yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
            if signed and size in _SIGN_EXTEND:
                yield _SIGN_EXTEND[size]
            yield from operands.set_from_rax(dst)
        case StoreMem(addr=addr, src=src, size=size):
            yield from operands.load_first("rdi", addr)
            yield from _check_store(size, emit)
            yield from operands.load("rax", src)
            yield _STORE.get(size, "mov qword ptr [rdi], rax")
            operands.in_rax = None
        case LoadStr(dst=dst, addr=addr, limit=limit):
            most = emit.context.program.string_size - 1
            yield from operands.load_first("rsi", addr)
            yield from emit.load_string_destination(dst)
            yield f"mov ecx, {min(limit, most) if limit else most:#x}"
            yield emit.call_routine("load_string")
            yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
            yield from emit.set_string_result(dst)
        case StoreStr(addr=addr, src=src, size=size):
            yield from operands.load_first("rdi", addr)
            if size:
                yield from _check_store(size, emit)
                yield from operands.load("rsi", src)
                yield f"mov ecx, {size:#x}"
                yield emit.call_routine("copy_padded")
            operands.in_rax = None
        case StrAddress(dst=dst, src=src):
            # All of it, however long a constant is.
            yield from operands.load_first("rsi", src)
            yield from emit.load_string_destination(dst)
            yield f"mov ecx, {emit.operands.allocation.longest_string:#x}"
            yield emit.call_routine("copy_padded")
            yield from emit.set_string_result(dst)
        case Copy(dst=dst, src=src):
            yield from operands.load_first("rax", src)
            yield from operands.set_from_rax(dst)
        case CopyMem():
            yield from _copy_memory(op, emit)


def _check_store(size: int, emit: EmitContext) -> Iterator[str]:
    """Go on only when a script may write ``size`` bytes at rdi; anything else is a fault."""
    yield f"mov ecx, {size:#x}"
    yield emit.call_routine("may_store")
    yield "mov rax, rdi"
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"


def _copy_memory(op: CopyMem, emit: EmitContext) -> Iterator[str]:
    """Copy by way of the bounce buffer, as source and target may overlap. A missing element reads as zeros."""
    label = emit.new_label()
    bounce = emit.scratch_operand(emit.context.scratch.bounce)
    spill = f"qword ptr {emit.scratch_operand(emit.context.scratch.temp)}"
    yield from emit.operands.load_first("rdi", op.target)
    if not op.size:
        emit.operands.in_rax = None
        return
    yield f"mov {spill}, rdi"
    yield from emit.operands.load("rsi", op.source)
    yield f"lea rdi, {bounce}"
    yield f"mov ecx, {op.size:#x}"
    yield "test rsi, rsi"
    yield f"jz {label}_none"
    yield emit.call_routine("load_bytes")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield f"jmp {label}_have"
    yield f"{label}_none:"
    yield f"mov ecx, {round8(op.size) // 8:#x}"
    yield emit.call_routine("clear_words")
    yield f"{label}_have:"
    yield f"mov rdi, {spill}"
    yield from _check_store(op.size, emit)
    yield f"lea rsi, {bounce}"
    yield f"mov ecx, {op.size // 8:#x}"
    yield emit.call_routine("copy_words")
    for offset, width in _tail(op.size):
        register = {4: "eax", 2: "ax", 1: "al"}[width]
        size = {4: "dword", 2: "word", 1: "byte"}[width]
        yield f"mov {register}, {size} ptr [rsi + {offset:#x}]"
        yield f"mov {size} ptr [rdi + {offset:#x}], {register}"
    emit.operands.in_rax = None


def _tail(size: int) -> Iterator[tuple[int, int]]:
    """Give offset and width of the copies for what is left after whole words.

    The offsets count from the end of the whole words, to which ``copy_words`` has moved both pointers.
    """
    offset = 0
    for width in (4, 2, 1):
        if size & width:
            yield offset, width
            offset += width


def load_memory(addr: Reg, target: Iterable[str], size: int, emit: EmitContext) -> Iterator[str]:
    """Copy ``size`` bytes of kernel memory. ``target``: the instructions that load rdi with where they go."""
    yield from emit.operands.load_first("rsi", addr)
    yield from target
    yield f"mov ecx, {size:#x}"
    yield emit.call_routine("load_bytes")
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"


# Variables.


def variable_op(op: VariableOp, emit: EmitContext, locals_: Locals) -> Iterator[str]:
    """Write the code of an operation on a variable, wherever the variable is."""
    variable = emit.context.program.variables[op.var]
    match op:
        case LoadVar(dst=dst) if variable.kind == "int":
            yield from _load_integer(variable, dst, emit, locals_)
        case StoreVar(src=src) if variable.kind == "int":
            yield from _store_integer(variable, src, emit, locals_)
        case LoadVar(dst=dst):
            yield from _load_string(variable, dst, emit)
        case StoreVar(src=src):
            yield from _store_string(variable, src, emit)
        case VarAddress(dst=dst):
            yield from _load_address(variable, "rax", emit, create=True)
            yield from emit.operands.set_from_rax(dst)
        case LoadElem(dst=dst, keys=keys):
            yield from _build_key(variable, keys, emit)
            if variable.kind == "string":
                yield from emit.load_string_destination(dst)
                yield f"mov edx, {max(variable.size, 1):#x}"
                yield emit.call_routine("element_load_string")
                yield from emit.set_string_result(dst)
            else:
                yield emit.call_routine("element_load")
                yield from emit.operands.set_from_rax(dst)
        case StoreElem(keys=keys, src=src):
            yield from _build_key(variable, keys, emit)
            if variable.kind == "string":
                yield from emit.operands.load("rsi", src)
                yield f"mov edi, {variable.size:#x}"
                yield emit.call_routine("element_store_string")
            else:
                yield from emit.operands.load("rdx", src)
                yield emit.call_routine("element_store")
            emit.operands.in_rax = None
        case ElemAddress(dst=dst, keys=keys, create=create):
            yield from _build_key(variable, keys, emit)
            yield f"mov edi, {variable.size:#x}"
            yield emit.call_routine("element_create" if create else "element_address")
            yield from emit.operands.set_from_rax(dst)


def _global_addr(variable: Variable, emit: EmitContext) -> int:
    return emit.context.activity + emit.context.storage.globals_[variable.index].offset


def _load_integer(variable: Variable, dst: Reg, emit: EmitContext, locals_: Locals) -> Iterator[str]:
    if variable.scope == "local":
        yield f"mov rax, qword ptr [rsp + {locals_[variable.index]:#x}]"
    elif variable.scope == "global":
        yield f"mov rcx, {_global_addr(variable, emit):#x}"
        yield "mov rax, qword ptr [rcx]"
    else:
        label = emit.new_label()
        yield emit.call_routine("thread_find")
        yield "test rax, rax"
        yield f"jz {label}"
        yield f"mov rax, qword ptr [rax + {_thread_offset(variable, emit):#x}]"
        yield f"{label}:"
    yield from emit.operands.set_from_rax(dst)


def _store_integer(variable: Variable, src: Reg, emit: EmitContext, locals_: Locals) -> Iterator[str]:
    operands = emit.operands
    if variable.scope == "local":
        yield from operands.store_to(f"[rsp + {locals_[variable.index]:#x}]", src)
    elif variable.scope == "global":
        yield f"mov rcx, {_global_addr(variable, emit):#x}"
        yield from operands.store_to("[rcx]", src)
    else:
        yield from operands.load_first("rdx", src)
        yield f"mov edi, {_thread_offset(variable, emit):#x}"
        yield emit.call_routine("thread_store")
    operands.in_rax = None


def _thread_offset(variable: Variable, emit: EmitContext) -> int:
    """Return the offset of a thread's variable in the thread's entry."""
    threads = required(emit.context.storage.threads, "the table of the threads' variables")
    return threads.variables[variable.index].offset


def _load_address(variable: Variable, into: str, emit: EmitContext, *, create: bool) -> Iterator[str]:
    """Load ``into`` with the address of a string or object; with 0 for a thread that has none and gets none.

    It changes rax as well for ``self->``. ``create``: make the thread's entry if need be.
    """
    match variable.scope:
        case "global":
            yield f"mov {into}, {_global_addr(variable, emit):#x}"
        case "local":
            yield f"lea {into}, {emit.scratch_operand(emit.context.scratch.local_variables[variable.index].offset)}"
        case "self":
            label = emit.new_label()
            yield emit.call_routine("thread_create" if create else "thread_find")
            yield "test rax, rax"
            yield f"jz {label}"
            yield f"add rax, {_thread_offset(variable, emit):#x}"
            yield f"{label}:"
            if into != "rax":
                yield f"mov {into}, rax"


def _load_string(variable: Variable, dst: Reg, emit: EmitContext) -> Iterator[str]:
    """Load a copy, as the variable may change before its value is used; no copy where the next operation uses it."""
    yield from _load_address(variable, "rax", emit, create=False)
    if variable.scope == "self":
        label = emit.new_label()
        yield "test rax, rax"
        yield f"jnz {label}"
        yield f"mov rax, {emit.context.string_pool:#x}"  # the pool begins with an empty string
        yield f"{label}:"
    if dst in emit.operands.allocation.read_in_place:
        yield from emit.operands.set_from_rax(dst)
        return
    yield "mov rsi, rax"
    yield from emit.load_string_destination(dst)
    yield f"mov ecx, {max(variable.size, 1):#x}"
    yield emit.call_routine("copy_padded")
    yield from emit.set_string_result(dst)


def _store_string(variable: Variable, src: Reg, emit: EmitContext) -> Iterator[str]:
    operands = emit.operands
    if variable.scope != "self":
        yield from operands.load_first("rsi", src)
        yield from _load_address(variable, "rdi", emit, create=True)
    else:
        label = emit.new_label()
        yield from operands.load_first("rdi", src)
        # An empty string needs no entry.
        yield emit.call_routine("thread_find")
        yield "test rax, rax"
        yield f"jnz {label}_there"
        yield "cmp byte ptr [rdi], 0"
        yield f"je {label}_none"
        yield emit.call_routine("thread_create")
        yield "test rax, rax"
        yield f"jz {label}_none"
        yield f"{label}_there:"
        yield "mov rsi, rdi"
        yield f"lea rdi, [rax + {_thread_offset(variable, emit):#x}]"
    yield f"mov ecx, {variable.size:#x}"
    yield emit.call_routine("copy_padded")
    if variable.scope == "self":
        yield f"{label}_none:"
    operands.in_rax = None


def _build_key(variable: Variable, keys: tuple[Reg, ...], emit: EmitContext) -> Iterator[str]:
    """Build the key of an element in the scratch memory, and load ecx with its words."""
    context, operands = emit.context, emit.operands
    start = context.scratch.key
    yield f"mov qword ptr {emit.scratch_operand(start)}, {variable.index}"
    offset = start + 8 + (16 if variable.scope == "self" else 0)
    for number, (kind, reg) in enumerate(zip(variable.keys or (), keys, strict=True)):
        if number:
            operands.in_rax = None
        if kind == "string":
            size = round8(context.program.string_size)
            yield from operands.load_first("rsi", reg)
            yield f"lea rdi, {emit.scratch_operand(offset)}"
            # Equal strings give equal keys, however long their variables are: cut as strings are, zeros after the NUL.
            yield f"mov qword ptr {emit.scratch_operand(offset + size - 8)}, 0"
            yield f"mov ecx, {context.program.string_size:#x}"
            yield emit.call_routine("copy_padded")
            offset += size
        else:
            constant = operands.immediate(reg)
            if constant is not None and fits_immediate(constant):
                yield f"mov qword ptr {emit.scratch_operand(offset)}, {constant:#x}"
            else:
                yield from operands.load_first("rax", reg)
                yield f"mov qword ptr {emit.scratch_operand(offset)}, rax"
            offset += 8
    if variable.scope == "self":
        yield emit.call_routine("self_key")
    yield f"mov ecx, {(offset - start) // 8:#x}"
    operands.in_rax = None
