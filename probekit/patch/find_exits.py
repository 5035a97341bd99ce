"""Find every way out of a function by disassembly of its live bytes.

Compilers split a function: ``name.cold`` holds its unlikely blocks elsewhere. Jumps between the two are not exits, and
the exits of the cold part are the function's. An exit that cannot be patched is returned with the reason.

A jump to another function's start is a *tail jump*; a jump to a return thunk is a return. This module only says which
exit is what (``ExitSite.kind``); :mod:`probekit.patch.detours` builds what replaces each kind.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from probekit.isa.decode import FlowExit, decode_one, scan_flow
from probekit.patch.ranges import any_inside
from probekit.patch.sites import (
    JUMP_SIZE,
    NO_FACTS,
    REWRITTEN_BY_GUEST,
    EntrySite,
    ExitKind,
    ExitSite,
    FunctionExits,
    TextFacts,
    entry_site,
)

__all__ = ("ColdLookup", "exit_sites")

ColdLookup = Callable[[int], "tuple[int, bytes] | None"]
"""From the target of a jump out of a function to (address, bytes) of that function's cold part there, or None."""

_RET_INT3 = b"\xc3\xcc\xcc\xcc\xcc"  # ret; int3 x 4
_EXIT_NAMES: dict[ExitKind, str] = {
    "ret": "return",
    "return_thunk": "return",
    "tail_jump": "tail jump",
    "cond_tail_jump": "conditional tail jump",
    "indirect_tail_jump": "indirect tail jump",
}


@dataclass(slots=True)
class _Walk:
    """Collect what one function's analysis has found so far."""

    func_addr: int
    """Address of the function."""
    facts: TextFacts
    """What is known of the kernel's text."""
    cold_at: ColdLookup | None
    """Finds the function's cold parts; None to look for none."""
    parts: list[tuple[int, bytes]]
    """(address, machine code) of the function, then of its cold parts."""
    exits: list[tuple[FlowExit, int]] = field(default_factory=list)
    """Each exit with the index of the part that it is in."""
    targets: list[int] = field(default_factory=list)
    """Where jumps land inside the function."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    """(address, reason) of the exits that cannot be patched."""
    strayed: bool = False
    """Whether a site may be no instruction at all, because there are foreign bytes in the code."""

    def owns(self, addr: int) -> bool:
        """Tell whether an address is in the function or its cold parts."""
        for start, code in self.parts:  # noqa: SIM110 - one or two parts: any() costs three times as much
            if start <= addr < start + len(code):
                return True
        return False

    def adopt(self, target: int) -> None:
        """Add the cold part of this function that ``target`` is in, if there is one."""
        if self.cold_at is None or self.owns(target):
            return
        part = self.cold_at(target)
        if part is not None and part[0] <= target < part[0] + len(part[1]):
            self.parts.append(part)


def exit_sites(
    addr: int, code: bytes, facts: TextFacts = NO_FACTS, *, cold_at: ColdLookup | None = None
) -> FunctionExits:
    """Find every way out of the function at ``addr`` with the live bytes ``code`` (padding included).

    ``cold_at``: finds the function's cold parts.
    """
    walk = _Walk(addr, facts, cold_at, [(addr, code)])
    index = 0
    while index < len(walk.parts):  # grows as cold parts are found
        _scan_part(walk, index)
        index += 1
    walk.targets.sort()
    sites: list[ExitSite] = []
    for exit_, part in walk.exits:
        found = _classify(walk, exit_, part)
        if isinstance(found, str):
            walk.refused.append((exit_.addr, found))
        elif found is not None:
            sites.append(found)
    if walk.strayed:
        sites = []
    return FunctionExits(addr, tuple(sites), tuple(sorted(walk.refused)))


def _scan_part(walk: _Walk, index: int) -> None:
    """Add the exits, jump targets and cold parts that part ``index`` leads to."""
    start, code = walk.parts[index]
    scan = scan_flow(code, start)
    walk.targets += scan.inner_targets
    for exit_ in scan.exits:
        walk.exits.append((exit_, index))
        if exit_.target:
            walk.adopt(exit_.target)
    hidden = walk.facts.hidden_jumps
    if hidden:
        for _, target in hidden[bisect_left(hidden, (start, 0)) : bisect_left(hidden, (start + len(code), 0))]:
            walk.targets.append(target)
            walk.adopt(target)
    if scan.strays:
        walk.strayed = True
        walk.refused.append(
            (scan.strays[0], "int3 or undecodable bytes in the code: a breakpoint of someone else, or data")
        )
    if scan.last in ("next", "cond"):
        walk.refused.append((scan.end, "falls through into the next function"))


def _classify(walk: _Walk, exit_: FlowExit, part: int) -> ExitSite | str | None:
    """Return the site of an exit, the reason why it has none, or None when it is no exit after all.

    A jump is no exit when it stays in the function, and an iretq is none when it goes on with the next instruction.
    ``part``: the index of the part that the exit is in.
    """
    flow, _, _, target = exit_
    if flow == "ret":
        return _jump_site(walk, exit_, part, "ret")
    if flow == "indirect_jump":
        return _indirect(walk, exit_, part)
    if flow == "system":
        if _returns_to_next(walk, exit_, part):
            return None
        return "leaves by an instruction that changes privilege or segment"
    if target in walk.facts.return_thunks:
        kind: ExitKind = "return_thunk" if flow == "jump" else "cond_tail_jump"
    else:
        if walk.owns(target) and not _reenters(walk, target):
            walk.targets.append(target)
            return None
        if walk.facts.starts and target not in walk.facts.starts:
            return f"jumps into the middle of other code ({target:#x})"
        kind = "tail_jump" if flow == "jump" else "cond_tail_jump"
    if flow == "cond":
        return _conditional(walk, exit_, part)
    return _jump_site(walk, exit_, part, kind)


def _returns_to_next(walk: _Walk, exit_: FlowExit, part: int) -> bool:
    # sync_core(): 68 imm32; 48 cf      push $1f; iretq; 1:      serialises and goes on with the next instruction.
    start, code = walk.parts[part]
    offset = exit_.addr - start
    after = (exit_.addr + 2) & 0xFFFFFFFF
    return code[max(offset - 5, 0) : offset + 2] == b"\x68" + after.to_bytes(4, "little") + b"\x48\xcf"


def _reenters(walk: _Walk, target: int) -> bool:
    # A jump to the function's own first byte passes its pad again: a tail call to itself, not a loop.
    return target == walk.func_addr and isinstance(entry_site(target, walk.parts[0][1]), EntrySite)


def _conditional(walk: _Walk, exit_: FlowExit, part: int) -> ExitSite | str:
    start, code = walk.parts[part]
    offset = exit_.addr - start
    opcode = code[offset + exit_.size - 6 : offset + exit_.size - 4]
    # 7x rel8: jcc near its target.
    if exit_.size == 2 and code[offset] & 0xF0 == 0x70:
        return _trap_site(walk, exit_, part, "cond_tail_jump", _no_room(exit_))
    # 0f 80 .. 0f 8f: jcc rel32, perhaps after a branch-hint prefix. loop and jrcxz have no room.
    if exit_.size < 6 or opcode[0] != 0x0F or opcode[1] & 0xF0 != 0x80:
        return _no_room(exit_)
    return _jump_site(walk, exit_, part, "cond_tail_jump")


def _no_room(exit_: FlowExit) -> str:
    return f"a {exit_.size}-byte conditional jump to another function has no room for a jump"


def _trap_site(walk: _Walk, exit_: FlowExit, part: int, kind: ExitKind, no_room: str) -> ExitSite | str:
    """Return the exit's instruction as a site for INT3, or why that cannot be. ``no_room``: why no jump fits."""
    start, code = walk.parts[part]
    _, addr, size, target = exit_
    facts = walk.facts
    if not facts.trapping:
        return f"{no_room}, and {facts.no_traps}" if facts.no_traps else no_room
    why = facts.refused.reason(addr)
    if why is not None:
        return f"{no_room}, and no INT3 may be put here: {why}"
    if facts.reserved and facts.reserved.overlap(addr, addr + size):
        return REWRITTEN_BY_GUEST
    return ExitSite(addr, code[addr - start : addr - start + size], walk.func_addr, kind, size, target or None)


def _indirect(walk: _Walk, exit_: FlowExit, part: int) -> ExitSite | str | None:
    start, code = walk.parts[part]
    offset = exit_.addr - start
    insn = code[offset : offset + exit_.size]
    if not walk.facts.jump_tables:
        return _jump_site(walk, exit_, part, "indirect_tail_jump")
    modrm = insn[insn.index(0xFF) + 1]
    # ff /4 with SIB (rm = 100b) and memory operand: jmp [table + index*8], a switch inside the function.
    if modrm >> 6 != 3 and modrm & 7 == 4:
        return "a jump through a table: where it goes is not known"
    return "an indirect jump: a switch inside the function or a tail call, which is not known"


def _jump_site(walk: _Walk, exit_: FlowExit, part: int, kind: ExitKind) -> ExitSite | str:
    start, code = walk.parts[part]
    _, addr, size, target = exit_
    offset = addr - start
    window = size if size > JUMP_SIZE else JUMP_SIZE
    old = code[offset : offset + window]
    if size < window:
        if len(old) < window or (old != _RET_INT3 and not _is_padding(old[size:], code[offset + window :])):
            no_room = f"a {size}-byte {_EXIT_NAMES[kind]} with live code after it has no room for a jump"
            return _trap_site(walk, exit_, part, kind, no_room)
        if any_inside(walk.targets, addr, addr + window):
            no_room = f"a branch lands inside the {window} bytes of this {_EXIT_NAMES[kind]}"
            return _trap_site(walk, exit_, part, kind, no_room)
    reserved = walk.facts.reserved
    if reserved and reserved.overlap(addr, addr + window):
        return REWRITTEN_BY_GUEST
    return ExitSite(addr, old, walk.func_addr, kind, size, target or None)


def _is_padding(tail: bytes, beyond: bytes) -> bool:
    """Tell whether ``tail`` is int3 and whole nops only; a nop may begin in it and end in ``beyond``."""
    code = tail + beyond[:15]
    offset = 0
    while offset < len(tail):
        if code[offset] == 0xCC:  # int3
            offset += 1
            continue
        insn = decode_one(code[offset:], 0)
        if insn.mnemonic != "nop":
            return False
        offset += insn.size
    return True
