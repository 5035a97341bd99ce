"""Where a program's variables and a firing's working memory are, planned from the clauses that run in the guest.

string s; a[int]; fbt:::entry { s = strjoin(execname, "x"); a[tid] = 1; self->t = 2; }
->  Storage(globals_={0: Place(0, 256)}, threads=ThreadTable(...), dynamic=DynamicTable(...), scratch=Scratch(...))
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
    Place,
    Scratch,
    ThreadTable,
    round8,
)
from probekit.codegen.reg_alloc import longest_text, text_slots
from probekit.ir.ops import (
    Aggregate,
    Builtin,
    Call,
    Clause,
    CopyMem,
    ElemAddr,
    LoadElem,
    LoadVar,
    Op,
    Program,
    StoreElem,
    StoreVar,
    VarAddr,
    Variable,
)

__all__ = ("MOST_FRAMES", "TEMP_SIZE", "Storage", "StorageOptions", "plan_storage", "shared_variables", "speculates")

TEMP_SIZE = 256
"""Bytes for small things: digits, the registers that the kernel's unwinder starts from."""

MOST_FRAMES = 127
"""What ``stackdepth`` counts up to: as deep as the kernel's own tools look."""

_GAP = 16  # behind each object: what runs off it meets nothing that may be written
_MOST = 1 << 28


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """``dynvarsize``: bytes for threads, and again for elements; ``scratchsize``: for ``alloca()`` in one clause.

    ``nspec``: how many speculations there are.
    """

    dynvarsize: int = 1 << 20
    scratchsize: int = 1 << 16
    nspec: int = 1


@dataclass(frozen=True, slots=True)
class Storage:
    """``globals_``: every global that is no array, by its number; ``objects``: those of them that are objects;
    ``arrays``: the associative arrays, whose elements are in ``dynamic``.

    ``speculations``: a word for each. ``size``: bytes of the data memory for all of it.
    """

    globals_: dict[int, Place]
    objects: tuple[int, ...]
    arrays: frozenset[int]
    threads: ThreadTable | None
    dynamic: DynamicTable | None
    speculations: Place | None
    scratch: Scratch
    size: int


def _ops(clauses: Iterable[Clause]) -> Iterable[Op]:
    return (op for clause in clauses for block in clause.blocks for op in block.ops)


def shared_variables(clauses: Iterable[Clause]) -> frozenset[int]:
    """The variables that these clauses use."""
    kinds = (LoadVar, StoreVar, VarAddr, LoadElem, StoreElem, ElemAddr)
    return frozenset(op.var for op in _ops(clauses) if isinstance(op, kinds))


def plan_storage(program: Program, clauses: Sequence[Clause], options: StorageOptions, start: int) -> Storage:
    """Lay everything out. ``clauses``: those that run in the guest; ``start``: the first free byte of the data memory.

    Integer globals always have their place; all others only when a clause in the guest uses them.
    """
    used = shared_variables(clauses)
    offset = start
    places: dict[int, Place] = {}
    objects: list[int] = []
    for variable in program.variables:
        if variable.scope != "global" or variable.keys is not None:
            continue
        if variable.kind == "int" or variable.index in used:
            size = 8 if variable.kind == "int" else variable.size
            places[variable.index] = Place(offset, size)
            offset += round8(size)
            if variable.kind == "object":
                objects.append(variable.index)
                offset = -(-offset // 16) * 16 + _GAP
    timed = any(isinstance(op, Builtin) and op.name == "vtimestamp" for op in _ops(clauses))
    threads = _threads(program, used, options, -(-offset // 64) * 64, timed=timed)
    offset = threads.offset + threads.size if threads is not None else offset
    dynamic = _dynamic(program, used, options, -(-offset // 64) * 64)
    offset = dynamic.offset + dynamic.size if dynamic is not None else offset
    arrays = frozenset(v.index for v in program.variables if v.keys is not None and v.index in used)
    speculations: Place | None = None
    if any(speculates(clause) for clause in clauses):
        speculations = Place(round8(offset), 8 * max(options.nspec, 1))
        offset = speculations.offset + speculations.size
    scratch = _scratch(program, clauses, used, options)
    return Storage(places, tuple(objects), arrays, threads, dynamic, speculations, scratch, offset)


def speculates(clause: Clause) -> bool:
    """Whether a clause has to do with speculations."""
    actions = clause.record.actions if clause.record is not None else ()
    calls = (op.name for op in _ops((clause,)) if isinstance(op, Call))
    return any(isinstance(action, Commit | Discard | Speculate) for action in actions) or "speculation" in calls


def _threads(
    program: Program, used: frozenset[int], options: StorageOptions, offset: int, *, timed: bool
) -> ThreadTable | None:
    places: dict[int, Place] = {RUN_TIME: Place(THREAD_HEAD, 8)} if timed else {}
    stride = THREAD_HEAD + 8 * len(places)
    for variable in program.variables:
        if variable.scope == "self" and variable.keys is None and variable.index in used:
            places[variable.index] = Place(stride, variable.size if variable.kind != "int" else 8)
            stride += round8(places[variable.index].size)
    if not places:
        return None
    room = min(options.dynvarsize, _MOST) // stride
    return ThreadTable(offset, 1 << (max(room, 8).bit_length() - 1), stride, places)


def key_words(variable: Variable, program: Program) -> int:
    """Words of an array's key: the variable, the thread if it belongs to one, and what is in the brackets."""
    own = sum(round8(program.string_size) // 8 if kind == "string" else 1 for kind in variable.keys or ())
    return 1 + (2 if variable.scope == "self" else 0) + own


def _dynamic(program: Program, used: frozenset[int], options: StorageOptions, offset: int) -> DynamicTable | None:
    arrays = [v for v in program.variables if v.keys is not None and v.index in used]
    if not arrays:
        return None
    longest = max(key_words(v, program) for v in arrays)
    stride = ENTRY_HEAD + max(8 * key_words(v, program) + round8(v.size if v.kind != "int" else 8) for v in arrays)
    capacity = max((min(options.dynvarsize, _MOST) - DYNAMIC_HEAD) // (stride + 12), 1)
    return DynamicTable(offset, 1 << (capacity - 1).bit_length(), capacity, stride, longest)


def _scratch(program: Program, clauses: Sequence[Clause], used: frozenset[int], options: StorageOptions) -> Scratch:
    """Offsets from the scratch memory's own start; :func:`in_block` moves them."""
    thread, free, temp = 0, 8, 16
    locals_ = temp + TEMP_SIZE
    offset = locals_
    calls = [op for op in _ops(clauses) if isinstance(op, Call)]
    token = offset
    if any(op.name == "strtok" for op in calls):
        offset += 8 + longest_text(program) + 8
    places: dict[int, Place] = {}
    for variable in program.variables:
        if variable.scope == "local" and variable.kind != "int" and variable.index in used:
            offset = -(-offset // 16) * 16
            places[variable.index] = Place(offset, variable.size)
            offset += round8(variable.size) + _GAP
    locals_size = round8(offset - locals_)
    texts = locals_ + locals_size
    texts_size = max((text_slots(clause, program)[1] for clause in clauses), default=0)
    key = texts + texts_size
    aggs = {op.agg for op in _ops(clauses) if isinstance(op, Aggregate)}
    words = max((program.aggregations[a].key_words for a in aggs), default=0)
    arrays = [program.variables[v] for v in used if program.variables[v].keys is not None]
    words = max([words, *(key_words(v, program) for v in arrays)])
    bounce = key + 8 * words + 8
    copies = [round8(op.size) + 8 for op in _ops(clauses) if isinstance(op, CopyMem)]
    copies += [longest_text(program) + 8 for op in calls if op.name in ("cleanpath", "copyoutstr")]
    copies += [
        8 * MOST_FRAMES for op in _ops(clauses) if isinstance(op, Builtin) and op.name in ("caller", "stackdepth")
    ]
    memory = -(-(bounce + max(copies, default=0)) // 16) * 16
    wants = any(op.name in ("alloca", "copyin", "copyout") for op in calls)
    memory_size = round8(min(options.scratchsize, _MOST)) if wants else 0
    return Scratch(
        thread=thread,
        free=free,
        temp=temp,
        token=token,
        locals_=locals_,
        locals_size=locals_size,
        texts=texts,
        texts_size=texts_size,
        key=key,
        bounce=bounce,
        memory=memory,
        memory_size=memory_size,
        size=memory + memory_size + 16,
        places=places,
    )
