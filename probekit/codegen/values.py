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

from probekit.codegen.context import ProbeKind
from probekit.ir.ops import (
    Aggregate,
    Arg,
    Bin,
    Branch,
    Builtin,
    Clause,
    Cmp,
    CopyMem,
    Emit,
    EmitMem,
    Ext,
    Int,
    Jump,
    LoadVar,
    Op,
    Reg,
    Return,
    StoreElem,
    StoreMem,
    StoreStr,
    StoreVar,
    Str,
    StrCmp,
    Terminator,
)

__all__ = ("Values", "dead_registers", "plan_values")

_FACTS = ("cpu", "execname", "pid", "tid")


@dataclass(frozen=True, slots=True)
class Values:
    """``constants``: registers with one value always. ``fetched``: what stays the same all through a firing.

    ``slots``: index of the word in the frame of those that need one. A register in none of them is passed on in
    ``rax``, or (``dead``) read by nothing.
    """

    constants: dict[Reg, int | bytes]
    fetched: dict[Reg, Arg | Builtin]
    slots: dict[Reg, int]
    dead: frozenset[Reg]

    def has_code(self, op: Op) -> bool:
        """False for an op that leaves no trace where it stands."""
        match op:
            case Int(dst=dst) | Str(dst=dst) | Arg(dst=dst) | Builtin(dst=dst) | LoadVar(dst=dst):
                return dst not in self.constants and dst not in self.fetched and dst not in self.dead
            case _:
                return True


def _reads(op: Op | Terminator, clause: Clause) -> Iterator[Reg]:
    """The registers that an op needs at run time, once for each time it needs them."""
    match op:
        case Bin(left=left, right=right) | Cmp(left=left, right=right) | StrCmp(left=left, right=right):
            yield from (left, right)
        case Ext(src=src) | StoreVar(src=src):
            yield src
        case Emit(field=field, src=src):
            if clause.record is not None and clause.record.fields[field].kind != "probe":
                yield src
        case Aggregate(keys=keys, value=value):
            yield from (reg for reg in (*keys, value) if reg is not None)
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
    match op:
        case StoreVar() | Emit() | Aggregate() | Jump() | Branch() | Return():
            return None
        case StoreElem() | StoreMem() | StoreStr() | CopyMem() | EmitMem():
            return None  # of clauses for the host: no code is made of them, see support
        case _:
            return op.dst


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
            return kind == "entry" or index > 0  # a return's arg0 is in the site table
        case Builtin(name=name):
            return name in _FACTS
        case _:
            return False


def plan_values(clause: Clause, kind: ProbeKind) -> Values:
    """Decide for every register of a clause at sites of one kind."""
    definitions, uses = _registers(clause)
    constants: dict[Reg, int | bytes] = {}
    fetched: dict[Reg, Arg | Builtin] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        match op:
            case Int(dst=dst, value=value) | Str(dst=dst, value=value) if definitions[dst] == 1:
                constants[dst] = value
            case Builtin(dst=dst, name="epid") if definitions[dst] == 1:
                constants[dst] = clause.index + 1
            case Arg(dst=dst) | Builtin(dst=dst) if definitions[dst] == 1 and _is_fetched(op, kind):
                fetched[dst] = op
            case _:
                pass
    values = Values(constants, fetched, {}, dead_registers(clause))
    passed: set[Reg] = set()
    for block in clause.blocks:
        for before, after in pairwise((*filter(values.has_code, block.ops), block.end)):
            reg = _defined(before)
            if reg is not None and definitions[reg] == uses[reg] == 1 and _first(after, clause) == reg:
                passed.add(reg)
    elsewhere = passed.union(constants, fetched, values.dead)
    return replace(values, slots={reg: n for n, reg in enumerate(sorted(definitions.keys() - elsewhere))})
