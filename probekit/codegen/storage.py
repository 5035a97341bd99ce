"""Plan where a program's variables and a firing's scratch memory lie, from the clauses that run in the guest.

string s; a[int]; fbt:::entry { s = strjoin(execname, "x"); a[tid] = 1; self->t = 2; }
->  Storage(globals_={0: Extent(0, 256)}, threads=ThreadTable(...), dynamic=DynamicTable(...), scratch=...)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probekit.buffers.actions import Commit, Discard, Speculate
from probekit.buffers.variables import (
    DYNAMIC_HEAD,
    ENTRY_HEAD,
    RUN_TIME,
    THREAD_HEAD,
    DynamicTable,
    Extent,
    ScratchLayout,
    ThreadTable,
    round8,
)
from probekit.codegen.reg_alloc import allocate_strings, longest_string
from probekit.ir.ops import (
    CallSubroutine,
    Clause,
    CopyMem,
    ElemAddress,
    LoadBuiltin,
    LoadElem,
    LoadVar,
    Op,
    Program,
    StoreElem,
    StoreVar,
    UpdateAgg,
    VarAddress,
    Variable,
)

__all__ = ("MAX_STACK_DEPTH", "Storage", "StorageOptions", "plan_storage")

_TEMP_SIZE = 256
"""Bytes of scratch memory for small things: digits, the registers that the kernel's unwinder starts from."""

MAX_STACK_DEPTH = 127
"""The most frames that ``stackdepth`` counts: as deep as the kernel's own tools look."""

_GAP = 16  # bytes after each object: a store that runs off it reaches nothing else that may be written
_MAX_TABLE = 1 << 28


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """The options that say how much memory a program's variables have."""

    dynvarsize: int = 1 << 20
    """Bytes for the variables of threads, and as many again for the elements of arrays."""
    scratchsize: int = 1 << 16
    """Bytes for ``alloca()`` in one clause."""
    nspec: int = 1
    """How many speculations there can be at once."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where everything that a program keeps is in the data memory."""

    globals_: dict[int, Extent]
    """Every global variable that is no array, by its index."""
    objects: tuple[int, ...]
    """The indexes of those that are objects."""
    arrays: frozenset[int]
    """The indexes of the associative arrays, whose elements are in ``dynamic``."""
    threads: ThreadTable | None
    """The variables of threads; None when there are none."""
    dynamic: DynamicTable | None
    """The elements of arrays; None when there are none."""
    speculations: Extent | None
    """A word for each speculation; None when no clause uses them."""
    scratch: ScratchLayout
    """The scratch memory of a firing, which is in each CPU's block."""
    size: int
    """Where all of this ends in the data memory, in bytes from its start; the scratch memory is not in it."""


def _ops(clauses: Iterable[Clause]) -> Iterable[Op]:
    return (op for clause in clauses for block in clause.blocks for op in block.ops)


def _used_variables(clauses: Iterable[Clause]) -> frozenset[int]:
    """Return the indexes of the variables that these clauses use."""
    kinds = (LoadVar, StoreVar, VarAddress, LoadElem, StoreElem, ElemAddress)
    return frozenset(op.var for op in _ops(clauses) if isinstance(op, kinds))


def plan_storage(program: Program, clauses: Sequence[Clause], options: StorageOptions, start: int) -> Storage:
    """Lay everything out. ``clauses``: those that run in the guest; ``start``: the first free byte of the data memory.

    Integer globals always have their place. All others have one only when a clause in the guest uses them.
    """
    used = _used_variables(clauses)
    offset = start
    globals_: dict[int, Extent] = {}
    objects: list[int] = []
    for variable in program.variables:
        if variable.scope != "global" or variable.keys is not None:
            continue
        if variable.kind == "int" or variable.index in used:
            size = 8 if variable.kind == "int" else variable.size
            globals_[variable.index] = Extent(offset, size)
            offset += round8(size)
            if variable.kind == "object":
                objects.append(variable.index)
                offset = -(-offset // 16) * 16 + _GAP
    timed = any(isinstance(op, LoadBuiltin) and op.name == "vtimestamp" for op in _ops(clauses))
    threads = _plan_threads(program, used, options, -(-offset // 64) * 64, timed=timed)
    offset = threads.offset + threads.size if threads is not None else offset
    dynamic = _plan_dynamic(program, used, options, -(-offset // 64) * 64)
    offset = dynamic.offset + dynamic.size if dynamic is not None else offset
    speculations: Extent | None = None
    if any(_uses_speculations(clause) for clause in clauses):
        speculations = Extent(round8(offset), 8 * max(options.nspec, 1))
        offset = speculations.offset + speculations.size
    return Storage(
        globals_=globals_,
        objects=tuple(objects),
        arrays=frozenset(v.index for v in program.variables if v.keys is not None and v.index in used),
        threads=threads,
        dynamic=dynamic,
        speculations=speculations,
        scratch=_plan_scratch(program, clauses, used, options),
        size=offset,
    )


def _uses_speculations(clause: Clause) -> bool:
    """Return True when a clause has an action on speculations, or calls ``speculation()``."""
    actions = clause.record.actions if clause.record is not None else ()
    calls = (op.name for op in _ops((clause,)) if isinstance(op, CallSubroutine))
    return any(isinstance(action, Commit | Discard | Speculate) for action in actions) or "speculation" in calls


def _plan_threads(
    program: Program, used: frozenset[int], options: StorageOptions, offset: int, *, timed: bool
) -> ThreadTable | None:
    """Plan the table of threads. ``timed``: each entry also holds the thread's highest ``vtimestamp``."""
    variables: dict[int, Extent] = {RUN_TIME: Extent(THREAD_HEAD, 8)} if timed else {}
    stride = THREAD_HEAD + 8 * len(variables)
    for variable in program.variables:
        if variable.scope == "self" and variable.keys is None and variable.index in used:
            variables[variable.index] = Extent(stride, variable.size if variable.kind != "int" else 8)
            stride += round8(variables[variable.index].size)
    if not variables:
        return None
    entries = min(options.dynvarsize, _MAX_TABLE) // stride
    return ThreadTable(offset, 1 << (max(entries, 8).bit_length() - 1), stride, variables)


def _key_words(variable: Variable, program: Program) -> int:
    """Return the words of an array's key: the variable, the thread if it belongs to one, what is in the brackets."""
    own = sum(round8(program.string_size) // 8 if kind == "string" else 1 for kind in variable.keys or ())
    return 1 + (2 if variable.scope == "self" else 0) + own


def _plan_dynamic(program: Program, used: frozenset[int], options: StorageOptions, offset: int) -> DynamicTable | None:
    arrays = [v for v in program.variables if v.keys is not None and v.index in used]
    if not arrays:
        return None
    longest = max(_key_words(v, program) for v in arrays)
    stride = ENTRY_HEAD + max(8 * _key_words(v, program) + round8(v.size if v.kind != "int" else 8) for v in arrays)
    capacity = max((min(options.dynvarsize, _MAX_TABLE) - DYNAMIC_HEAD) // (stride + 12), 1)
    return DynamicTable(offset, 1 << (capacity - 1).bit_length(), capacity, stride, longest)


def _plan_scratch(
    program: Program, clauses: Sequence[Clause], used: frozenset[int], options: StorageOptions
) -> ScratchLayout:
    """Plan a firing's scratch memory: in the order of its fields, each as large as the neediest clause asks."""
    thread_entry, alloca_next, temp = 0, 8, 16
    locals_ = temp + _TEMP_SIZE
    offset = locals_
    calls = [op for op in _ops(clauses) if isinstance(op, CallSubroutine)]
    strtok_state = offset
    if any(op.name == "strtok" for op in calls):
        offset += 8 + longest_string(program) + 8
    local_variables: dict[int, Extent] = {}
    for variable in program.variables:
        if variable.scope == "local" and variable.kind != "int" and variable.index in used:
            offset = -(-offset // 16) * 16
            local_variables[variable.index] = Extent(offset, variable.size)
            offset += round8(variable.size) + _GAP
    locals_size = round8(offset - locals_)
    strings = locals_ + locals_size
    strings_size = max((allocate_strings(clause, program)[1] for clause in clauses), default=0)
    key = strings + strings_size
    bounce = key + 8 * _longest_key(program, clauses, used) + 8
    alloca = -(-(bounce + _bounce_size(program, clauses)) // 16) * 16
    needed = any(op.name in ("alloca", "copyin", "copyout") for op in calls)
    alloca_size = round8(min(options.scratchsize, _MAX_TABLE)) if needed else 0
    return ScratchLayout(
        thread_entry=thread_entry,
        alloca_next=alloca_next,
        temp=temp,
        strtok_state=strtok_state,
        locals_=locals_,
        locals_size=locals_size,
        strings=strings,
        strings_size=strings_size,
        key=key,
        bounce=bounce,
        alloca=alloca,
        alloca_size=alloca_size,
        size=alloca + alloca_size + 16,
        local_variables=local_variables,
    )


def _longest_key(program: Program, clauses: Sequence[Clause], used: frozenset[int]) -> int:
    """Return the words of the longest key that these clauses build, of an aggregation or of an array."""
    aggs = {op.agg for op in _ops(clauses) if isinstance(op, UpdateAgg)}
    words = max((program.aggregations[a].key_words for a in aggs), default=0)
    arrays = [program.variables[v] for v in used if program.variables[v].keys is not None]
    return max([words, *(_key_words(v, program) for v in arrays)])


def _bounce_size(program: Program, clauses: Sequence[Clause]) -> int:
    """Return the bytes that the bounce buffer needs."""
    sizes = [0]
    for op in _ops(clauses):
        match op:
            case CopyMem(size=size):
                sizes.append(round8(size) + 8)
            case CallSubroutine(name="cleanpath" | "copyoutstr"):
                sizes.append(longest_string(program) + 8)
            case LoadBuiltin(name="caller" | "stackdepth"):
                sizes.append(8 * MAX_STACK_DEPTH)
            case _:
                pass
    return max(sizes)
