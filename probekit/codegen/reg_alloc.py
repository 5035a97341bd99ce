"""Where a clause's values are, decided before any code is made.

Most registers never need memory of their own. One that holds a constant is written into the instructions that read
it; an argument or a fact of the task is fetched where it is read; what is read once, by the very next op, stays in
``rax``. The rest have a slot in the frame.

    r0 = arg 0                                            fetched
    r1 = arg 1                                            fetched
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
from probekit.errors import InternalError
from probekit.ir.names import BUILTINS, CALLS
from probekit.ir.ops import (
    Aggregate,
    Arg,
    Bin,
    Branch,
    Builtin,
    Call,
    Clause,
    Cmp,
    Copy,
    CopyMem,
    ElemAddr,
    Emit,
    EmitMem,
    Ext,
    Int,
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
    StrAddr,
    StrCmp,
    Terminator,
)

__all__ = (
    "FACTS",
    "LEADING_ARGUMENTS",
    "RETURNS",
    "ProbeKind",
    "Values",
    "dead_registers",
    "longest_text",
    "plan_values",
    "text_slots",
)

ProbeKind = Literal["entry", "return", "syscall", "sysret", "sysend", "instruction", "tracepoint", "marker"]
"""What a site is: a function's entry, a place where it returns, the same of a system call, a place where a function
returns that several system calls may end in, an instruction in the middle of a function; or a function of ours that a
tracepoint or a marker calls."""

RETURNS: tuple[ProbeKind, ...] = ("return", "sysret", "sysend")
"""Where rax is what a function returns."""

LEADING_ARGUMENTS: dict[ProbeKind, int] = {"entry": 0, "instruction": 0, "tracepoint": 1, "marker": 2}
"""How many arguments stand before ``arg0``, where they are those of a function: a tracepoint's data comes first."""

FACTS = ("caller", "cpu", "curthread", "execname", "gid", "percpu_offset", "pid", "ppid", "tid", "uid")
"""Built-ins that a load or two fetch wherever they are read."""


@dataclass(frozen=True, slots=True)
class Values:
    """``constants``: registers with one value always. ``fetched``: what stays the same all through a firing.

    ``slots``: index of the word in the frame of those that need one. ``texts``: where the string that an operation
    makes lies among the scratch memory's texts; such a register needs no word (``all_texts``: also of registers that
    different operations set). A register in none of them is passed on in ``rax``, or (``dead``) read by nothing.
    ``direct``: strings read in place by the very next operation. ``padded``: strings of which 16 bytes may be taken
    as they are. ``longest``: bytes of the longest string that the program can meet.
    """

    constants: dict[Reg, int | bytes]
    fetched: dict[Reg, Arg | Builtin]
    slots: dict[Reg, int]
    dead: frozenset[Reg]
    texts: dict[Reg, int]
    all_texts: dict[Reg, int]
    direct: frozenset[Reg]
    padded: frozenset[Reg]
    longest: int

    def has_code(self, op: Op) -> bool:
        """False for an op that leaves no trace where it stands."""
        match op:
            case Int(dst=dst) | Str(dst=dst) | Arg(dst=dst) | Builtin(dst=dst) | LoadVar(dst=dst):
                return dst not in self.constants and dst not in self.fetched and dst not in self.dead
            case _:
                return True


def longest_text(program: Program) -> int:
    """Bytes of the longest string that a clause can meet, its NUL included."""
    ops = (op for clause in program.clauses for block in clause.blocks for op in block.ops)
    return max([256, program.string_size, *(len(op.value) + 1 for op in ops if isinstance(op, Str))])


def _text_size(op: Op, program: Program, constants: dict[Reg, int | bytes]) -> int:
    """Bytes of the string, or row of addresses, that an operation makes; 0 when it makes none."""
    match op:
        case LoadVar(var=var) | LoadElem(var=var) if program.variables[var].kind == "string":
            return max(program.variables[var].size, program.string_size)
        case LoadStr():
            return program.string_size
        case StrAddr():
            return longest_text(program)
        case Builtin(name=name) if BUILTINS[name].made:
            return program.string_size
        case Call(name="stack" | "ustack" | "jstack", args=(frames,)):
            count = constants.get(frames, 0)
            return 8 * count if isinstance(count, int) else 0
        case Call(name=name) if CALLS[name].kind == "string":
            return program.string_size
        case _:
            return 0


def text_slots(clause: Clause, program: Program) -> tuple[dict[Reg, int], int]:
    """Where each string that the clause makes lies, and how many bytes all of them take.

    Each has a word of room behind it, for copies by whole words.
    """
    slots: dict[Reg, int] = {}
    constants = _constants(clause)
    sizes: dict[Reg, int] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        size = _text_size(op, program, constants)
        if size:
            dst = _defined(op)
            if dst is None:
                raise InternalError("an operation that makes a value has no register for it")
            sizes[dst] = max(sizes.get(dst, 0), size)
    offset = 0
    for dst, size in sizes.items():
        slots[dst] = offset
        offset += round8(size) + 8
    return slots, offset


def _constants(clause: Clause) -> dict[Reg, int | bytes]:
    """Registers that hold one constant always."""
    definitions, _ = _registers(clause)
    found: dict[Reg, int | bytes] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        match op:
            case Int(dst=dst, value=value) | Str(dst=dst, value=value) if definitions[dst] == 1:
                found[dst] = value
            case Builtin(dst=dst, name="epid") if definitions[dst] == 1:
                found[dst] = clause.index + 1
            case _:
                pass
    return found


def _reads(op: Op | Terminator, clause: Clause) -> Iterator[Reg]:
    """The registers that an op needs at run time, once for each time it needs them, in the order it takes them."""
    match op:
        case Bin(left=left, right=right) | Cmp(left=left, right=right) | StrCmp(left=left, right=right):
            yield from (left, right)
        case Ext(src=src) | StoreVar(src=src) | Copy(src=src) | StrAddr(src=src):
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
        case LoadElem(keys=keys) | ElemAddr(keys=keys):
            yield from keys
        case StoreElem(keys=keys, src=src):
            yield from (*keys, src)
        case Call(args=args):
            yield from args
        case Aggregate(keys=keys, value=value, weight=weight):
            yield from (reg for reg in (*keys, value, weight) if reg is not None)
        case Branch(cond=cond):
            yield cond
        case _:
            pass


def _first(op: Op | Terminator, clause: Clause) -> Reg | None:
    """The register that the code of ``op`` takes before it changes ``rax``."""
    if isinstance(op, Aggregate) and op.keys:
        return op.keys[0]  # the value comes after the look-up of the key
    return next(_reads(op, clause), None)


def _defined(op: Op | Terminator) -> Reg | None:
    dst: Reg | None = getattr(op, "dst", None)  # exactly the operations that write a register have one
    return dst


def _registers(clause: Clause) -> tuple[Counter[Reg], Counter[Reg]]:
    """How often each register is defined, and how often it is read."""
    definitions = Counter(r for block in clause.blocks for op in block.ops if (r := _defined(op)) is not None)
    uses = Counter(r for block in clause.blocks for op in (*block.ops, block.end) for r in _reads(op, clause))
    return definitions, uses


def dead_registers(clause: Clause) -> frozenset[Reg]:
    """Registers that no code reads, as a probe's name that is only recorded."""
    definitions, uses = _registers(clause)
    return frozenset(r for r in definitions if not uses[r])


def _is_fetched(op: Op, kind: ProbeKind) -> bool:
    match op:
        case Arg(index=index):
            return kind != "return" or index > 0  # a return's arg0 is in the site table
        case Builtin(name="caller"):
            return kind != "instruction"  # in the middle of a function only the unwinder knows
        case Builtin(name=name):
            return name in FACTS
        case _:
            return False


def _padded(clause: Clause) -> frozenset[Reg]:
    """Registers that only ever hold a task's name or a constant: both are that long in memory, and zero behind."""
    ops = [op for block in clause.blocks for op in block.ops]
    named = {
        dst
        for op in ops
        if isinstance(op, Str) or (isinstance(op, Builtin) and op.name == "execname")
        if (dst := _defined(op)) is not None
    }
    others = {_defined(op) for op in ops if not isinstance(op, Str | Builtin)}
    others |= {op.dst for op in ops if isinstance(op, Builtin) and op.name != "execname"}
    return frozenset(named - others)


def plan_values(clause: Clause, kind: ProbeKind, program: Program) -> Values:
    """Decide for every register of a clause at sites of one kind."""
    definitions, uses = _registers(clause)
    constants = _constants(clause)
    fetched: dict[Reg, Arg | Builtin] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        match op:
            case Arg(dst=dst) | Builtin(dst=dst) if (
                definitions[dst] == 1 and dst not in constants and _is_fetched(op, kind)
            ):
                fetched[dst] = op
            case _:
                pass
    all_texts = text_slots(clause, program)[0]
    texts = {reg: at for reg, at in all_texts.items() if definitions[reg] == 1}
    dead, padded = dead_registers(clause), _padded(clause)
    values = Values(constants, fetched, {}, dead, texts, all_texts, frozenset(), padded, longest_text(program))
    passed: set[Reg] = set()
    direct: set[Reg] = set()
    for block in clause.blocks:
        for before, after in pairwise((*filter(values.has_code, block.ops), block.end)):
            reg = _defined(before)
            if reg is not None and definitions[reg] == uses[reg] == 1 and _first(after, clause) == reg:
                if reg not in texts:
                    passed.add(reg)
                elif isinstance(before, LoadVar) and not isinstance(after, Copy):
                    direct.add(reg)
    texts = {reg: at for reg, at in texts.items() if reg not in direct}
    elsewhere = passed.union(direct, constants, fetched, texts, values.dead)
    slots = {reg: n for n, reg in enumerate(sorted(definitions.keys() - elsewhere))}
    return replace(values, slots=slots, texts=texts, direct=frozenset(direct))
