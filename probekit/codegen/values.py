"""Where a clause's values are, decided before any code is made.

Most registers never need memory. One that holds a constant is written into the instructions that read it; one that
is read once, by the very next op, stays in ``rax``. The rest have a slot in the frame.

    r0 = arg 0                mov rax, [rbp + 0x18]
    r1 = int 3                                            constant
    r2 = cmp sgt r0, r1       cmp rax, 3                  r0 passed on in rax
    branch r2, b1, b2         jle b2                      r2 passed on in the flags
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

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

__all__ = ("Values", "has_code", "plan_values", "reads")


@dataclass(frozen=True, slots=True)
class Values:
    """``constants``: registers with one value always. ``slots``: index of the word in the frame of those that need one.

    A register in neither is passed on in ``rax``, or (``dead``) read by nothing.
    """

    constants: dict[Reg, int | bytes]
    slots: dict[Reg, int]
    dead: frozenset[Reg]


def reads(op: Op | Terminator, clause: Clause) -> Iterator[Reg]:
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
    return next(reads(op, clause), None)


def _defined(op: Op | Terminator) -> Reg | None:
    match op:
        case StoreVar() | Emit() | Aggregate() | Jump() | Branch() | Return():
            return None
        case StoreElem() | StoreMem() | StoreStr() | CopyMem() | EmitMem():
            return None  # of clauses for the host: no code is made of them, see support
        case _:
            return op.dst


def plan_values(clause: Clause) -> Values:
    """Decide for every register of a clause."""
    uses = Counter(r for block in clause.blocks for op in (*block.ops, block.end) for r in reads(op, clause))
    definitions = Counter(r for block in clause.blocks for op in block.ops if (r := _defined(op)) is not None)
    constants: dict[Reg, int | bytes] = {
        op.dst: op.value
        for block in clause.blocks
        for op in block.ops
        if isinstance(op, (Int, Str)) and definitions[op.dst] == 1
    }
    dead = frozenset(r for r in definitions if not uses[r])
    passed: set[Reg] = set()
    for block in clause.blocks:
        coded = [op for op in block.ops if has_code(op, constants, dead)]
        for op, after in pairwise((*coded, block.end)):
            dst = _defined(op)
            if dst is not None and definitions[dst] == uses[dst] == 1 and _first(after, clause) == dst:
                passed.add(dst)
    stored = [r for r in definitions if r not in constants and r not in dead and r not in passed]
    return Values(constants, {r: n for n, r in enumerate(sorted(stored))}, dead)


def has_code(op: Op, constants: dict[Reg, int | bytes], dead: frozenset[Reg]) -> bool:
    """False for an op that leaves no trace: what it defines is a constant, or read by nothing."""
    match op:
        case Int(dst=dst) | Str(dst=dst):
            return dst not in constants and dst not in dead
        case Arg(dst=dst) | Builtin(dst=dst) | LoadVar(dst=dst):
            return dst not in dead
        case _:
            return True
