"""Decide where the values of a clause are, before any code is made.

Most registers never need memory of their own. A constant is written into the instructions that read it. An argument or
a fact of the task is loaded wherever it is read. A value that only the very next operation reads stays in ``rax``. All
other registers have a slot in the frame.

    r0 = arg 0                                            loaded where it is read
    r1 = arg 1                                            loaded where it is read
    r2 = bin add r0, r1       mov rax, [rbp + 0x10]; add rax, [rbp + 0x18]
    r3 = int 3                                            constant
    r4 = cmp sgt r2, r3       cmp rax, 3                  r2 passed on in rax
    branch r4, b1, b2         jle b2                      r4 passed on in the flags
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from probekit.buffers.variables import round8
from probekit.errors import required
from probekit.ir.names import BUILTINS, CALLS
from probekit.ir.ops import (
    Bin,
    Branch,
    CallSubroutine,
    Clause,
    Cmp,
    Copy,
    CopyMem,
    ElemAddress,
    Emit,
    EmitMem,
    Ext,
    Int,
    LoadArg,
    LoadBuiltin,
    LoadElem,
    LoadMem,
    LoadStr,
    LoadVar,
    Op,
    Program,
    Reg,
    StoreElem,
    StoreMem,
    StoreStr,
    StoreVar,
    Str,
    StrAddress,
    StrCmp,
    Terminator,
    UpdateAgg,
)

__all__ = (
    "LEADING_ARGUMENTS",
    "REMATERIALIZED_BUILTINS",
    "RETURNS",
    "FiringKind",
    "RegAllocation",
    "allocate_registers",
    "allocate_strings",
    "dead_registers",
    "longest_string",
)

FiringKind = Literal[
    "entry", "return", "syscall", "syscall32", "sysret", "sysend", "instruction", "tracepoint", "marker"
]
"""What a site is.

``entry``, ``return``: a function's entry, and a place where it returns. ``syscall``, ``sysret``: the same of a
function that one system call has; ``syscall32``: its entry, where the function serves 32-bit programs. ``sysend``: a
place where a function returns that several system calls may end in.
``instruction``: an instruction in the middle of a function. ``tracepoint``, ``marker``: a function of ours that the
tracepoint or marker calls.
"""

RETURNS: tuple[FiringKind, ...] = ("return", "sysret", "sysend")
"""The kinds of site where ``rax`` is what a function returns."""

LEADING_ARGUMENTS: dict[FiringKind, int] = {"entry": 0, "instruction": 0, "tracepoint": 1, "marker": 2}
"""How many of the function's arguments stand before ``arg0``: the registered data of a tracepoint comes first.

Kinds that are missing here do not have the arguments of a function.
"""

REMATERIALIZED_BUILTINS = (
    "caller",
    "cpu",
    "curthread",
    "execname",
    "gid",
    "percpu_offset",
    "pid",
    "ppid",
    "tid",
    "uid",
)
"""Built-ins that a load or two fetch, so that they are loaded again wherever they are read."""


@dataclass(frozen=True, slots=True)
class RegAllocation:
    """Where each register of a clause is.

    A register that is in none of the tables is passed on in ``rax`` to the operation after it.
    """

    constants: dict[Reg, int | bytes]
    """The registers that hold one constant always."""
    rematerialized: dict[Reg, LoadArg | LoadBuiltin]
    """The registers that are loaded again where they are read: their values stay the same throughout a firing."""
    slots: dict[Reg, int]
    """The index of the word in the frame of each register that needs one."""
    dead: frozenset[Reg]
    """The registers that nothing reads."""
    string_slots: dict[Reg, int]
    """Offset, among the strings of the scratch memory, of the string that the register's only operation makes there.

    Such a register needs no word: it is the address of that place.
    """
    all_string_slots: dict[Reg, int]
    """The same also for registers that several operations set, and for those that are read in place."""
    read_in_place: frozenset[Reg]
    """The string variables that are not copied, because only the operation right after the load reads them."""
    padded: frozenset[Reg]
    """The strings of which 16 bytes may be copied as they are: they are that long in memory, with NULs at the end."""
    longest_string: int
    """Bytes of the longest string that the program can meet, with its NUL."""

    def has_code(self, op: Op) -> bool:
        """Return False for an operation that needs no code where it stands."""
        match op:
            case Int(dst=dst) | Str(dst=dst) | LoadArg(dst=dst) | LoadBuiltin(dst=dst) | LoadVar(dst=dst):
                return dst not in self.constants and dst not in self.rematerialized and dst not in self.dead
            case _:
                return True


def longest_string(program: Program) -> int:
    """Return the bytes of the longest string that a clause can meet, with its NUL."""
    ops = (op for clause in program.clauses for block in clause.blocks for op in block.ops)
    return max([256, program.string_size, *(len(op.value) + 1 for op in ops if isinstance(op, Str))])


def _string_size(op: Op, program: Program, constants: dict[Reg, int | bytes]) -> int:
    """Return the bytes of the string, or row of addresses, that an operation makes; 0 when it makes none."""
    match op:
        case LoadVar(var=var) | LoadElem(var=var) if program.variables[var].kind == "string":
            return max(program.variables[var].size, program.string_size)
        case LoadStr():
            return program.string_size
        case StrAddress():
            return longest_string(program)
        case LoadBuiltin(name=name) if BUILTINS[name].by_routine:
            return program.string_size
        case CallSubroutine(name="stack" | "ustack" | "jstack", args=(frames,)):
            count = constants.get(frames, 0)
            return 8 * count if isinstance(count, int) else 0
        case CallSubroutine(name=name) if CALLS[name].kind == "string":
            return program.string_size
        case _:
            return 0


def allocate_strings(clause: Clause, program: Program) -> tuple[dict[Reg, int], int]:
    """Return the offset of each string that the clause makes, by register, and the bytes of all of them.

    Each has a spare word after it, for copies by whole words.
    """
    slots: dict[Reg, int] = {}
    constants = _constants(clause)
    sizes: dict[Reg, int] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        size = _string_size(op, program, constants)
        if size:
            dst = required(_defined(op), "the register of an operation that makes a string")
            sizes[dst] = max(sizes.get(dst, 0), size)
    offset = 0
    for dst, size in sizes.items():
        slots[dst] = offset
        offset += round8(size) + 8
    return slots, offset


def _constants(clause: Clause) -> dict[Reg, int | bytes]:
    """Return the registers that hold one constant always, with their constants."""
    definitions, _ = _registers(clause)
    found: dict[Reg, int | bytes] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        match op:
            case Int(dst=dst, value=value) | Str(dst=dst, value=value) if definitions[dst] == 1:
                found[dst] = value
            case LoadBuiltin(dst=dst, name="epid") if definitions[dst] == 1:
                found[dst] = clause.index + 1
            case _:
                pass
    return found


def _reads(op: Op | Terminator, clause: Clause) -> Iterator[Reg]:
    """Yield the registers that an operation needs at run time, once for each time, in the order it takes them."""
    match op:
        case Bin(left=left, right=right) | Cmp(left=left, right=right) | StrCmp(left=left, right=right):
            yield from (left, right)
        case Ext(src=src) | StoreVar(src=src) | Copy(src=src) | StrAddress(src=src):
            yield src
        case Emit(field=field, src=src):
            if clause.record is not None and clause.record.fields[field].kind != "probe":
                yield src
        case LoadMem(addr=addr) | LoadStr(addr=addr) | EmitMem(addr=addr):
            yield addr
        case StoreMem(addr=addr, src=src) | StoreStr(addr=addr, src=src):
            yield from (addr, src)
        case CopyMem(target=target, source=source):
            yield from (target, source)
        case LoadElem(keys=keys) | ElemAddress(keys=keys):
            yield from keys
        case StoreElem(keys=keys, src=src):
            yield from (*keys, src)
        case CallSubroutine(args=args):
            yield from args
        case UpdateAgg(keys=keys, value=value, weight=weight):
            yield from (reg for reg in (*keys, value, weight) if reg is not None)
        case Branch(cond=cond):
            yield cond
        case _:
            pass


def _first_read(op: Op | Terminator, clause: Clause) -> Reg | None:
    """Return the register that the code of ``op`` takes before it changes ``rax``."""
    if isinstance(op, UpdateAgg) and op.keys:
        return op.keys[0]  # the value comes after the look-up of the key
    return next(_reads(op, clause), None)


def _defined(op: Op | Terminator) -> Reg | None:
    dst: Reg | None = getattr(op, "dst", None)  # exactly the operations that write a register have one
    return dst


def _registers(clause: Clause) -> tuple[Counter[Reg], Counter[Reg]]:
    """Count how often each register is defined, and how often it is read."""
    definitions = Counter(r for block in clause.blocks for op in block.ops if (r := _defined(op)) is not None)
    uses = Counter(r for block in clause.blocks for op in (*block.ops, block.end) for r in _reads(op, clause))
    return definitions, uses


def dead_registers(clause: Clause) -> frozenset[Reg]:
    """Return the registers that no code reads, such as a probe's name that is only recorded."""
    definitions, uses = _registers(clause)
    return frozenset(r for r in definitions if not uses[r])


def _is_rematerialized(op: Op, kind: FiringKind) -> bool:
    match op:
        case LoadArg(index=index):
            return kind != "return" or index > 0  # a return's arg0 is in the site table
        case LoadBuiltin(name="caller"):
            return kind != "instruction"  # in the middle of a function only the unwinder knows
        case LoadBuiltin(name=name):
            return name in REMATERIALIZED_BUILTINS
        case _:
            return False


def _padded_registers(clause: Clause) -> frozenset[Reg]:
    """Return the registers that only ever hold a task's name or a constant: both end in NULs up to 16 bytes."""
    ops = [op for block in clause.blocks for op in block.ops]
    padded = {
        dst
        for op in ops
        if isinstance(op, Str) or (isinstance(op, LoadBuiltin) and op.name == "execname")
        if (dst := _defined(op)) is not None
    }
    others = {_defined(op) for op in ops if not isinstance(op, Str | LoadBuiltin)}
    others |= {op.dst for op in ops if isinstance(op, LoadBuiltin) and op.name != "execname"}
    return frozenset(padded - others)


def allocate_registers(clause: Clause, kind: FiringKind, program: Program) -> RegAllocation:
    """Decide for every register of a clause at sites of one kind."""
    definitions, uses = _registers(clause)
    constants = _constants(clause)
    rematerialized: dict[Reg, LoadArg | LoadBuiltin] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        match op:
            case LoadArg(dst=dst) | LoadBuiltin(dst=dst) if (
                definitions[dst] == 1 and dst not in constants and _is_rematerialized(op, kind)
            ):
                rematerialized[dst] = op
            case _:
                pass
    all_strings = allocate_strings(clause, program)[0]
    strings = {reg: offset for reg, offset in all_strings.items() if definitions[reg] == 1}
    draft = RegAllocation(
        constants=constants,
        rematerialized=rematerialized,
        slots={},
        dead=dead_registers(clause),
        string_slots=strings,
        all_string_slots=all_strings,
        read_in_place=frozenset(),
        padded=_padded_registers(clause),
        longest_string=longest_string(program),
    )
    passed: set[Reg] = set()
    read_in_place: set[Reg] = set()
    for block in clause.blocks:
        for before, after in pairwise((*filter(draft.has_code, block.ops), block.end)):
            reg = _defined(before)
            if reg is not None and definitions[reg] == uses[reg] == 1 and _first_read(after, clause) == reg:
                if reg not in strings:
                    passed.add(reg)
                elif isinstance(before, LoadVar) and not isinstance(after, Copy):
                    read_in_place.add(reg)
    strings = {reg: offset for reg, offset in strings.items() if reg not in read_in_place}
    elsewhere = passed.union(read_in_place, constants, rematerialized, strings, draft.dead)
    slots = {reg: n for n, reg in enumerate(sorted(definitions.keys() - elsewhere))}
    return replace(draft, slots=slots, string_slots=strings, read_in_place=frozenset(read_in_place))
