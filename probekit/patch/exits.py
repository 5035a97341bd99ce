"""Every way out of a function, by disassembly of its live bytes.

Jumps between a function and its cold part (``name.cold``) are no exits; those of the cold part are the parent's.
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
    EntrySite,
    ExitKind,
    ExitSite,
    FunctionExits,
    TextFacts,
    entry_site,
)

__all__ = (
    "ColdLookup",
    "exit_sites",
)

ColdLookup = Callable[[int], "tuple[int, bytes] | None"]
"""Given the target of a jump out of a function: the (address, bytes) of that function's cold part there, or None."""
_RET_INT3 = b"\xc3\xcc\xcc\xcc\xcc"  # ret; int3 x 4
_WORDS: dict[ExitKind, str] = {
    "ret": "return",
    "return_thunk": "return",
    "tail_jump": "tail jump",
    "cond_tail_jump": "conditional tail jump",
    "indirect_tail_jump": "indirect tail jump",
}


@dataclass(slots=True)
class _Walk:
    """The state of one function's analysis: its parts (address ranges with bytes), and what was found."""

    func_addr: int
    facts: TextFacts
    cold_at: ColdLookup | None
    parts: list[tuple[int, bytes]]
    leaves: list[tuple[FlowExit, int]] = field(default_factory=list)  # with the index of the part
    targets: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    strayed: bool = False

    def owns(self, addr: int) -> bool:
        for start, code in self.parts:  # noqa: SIM110 - one or two parts: any() costs three times as much
            if start <= addr < start + len(code):
                return True
        return False

    def adopt(self, target: int) -> None:
        """If ``target`` lies in a cold part of this function, take that part in."""
        if self.cold_at is None or self.owns(target):
            return
        part = self.cold_at(target)
        if part is not None and part[0] <= target < part[0] + len(part[1]):
            self.parts.append(part)


def exit_sites(
    addr: int, code: bytes, facts: TextFacts = NO_FACTS, *, cold_at: ColdLookup | None = None
) -> FunctionExits:
    """Every way out of the function at ``addr`` whose live bytes (padding included) are ``code``."""
    walk = _Walk(addr, facts, cold_at, [(addr, code)])
    index = 0
    while index < len(walk.parts):  # grows as cold parts are found
        _scan_part(walk, index)
        index += 1
    walk.targets.sort()
    sites: list[ExitSite] = []
    for leave, part in walk.leaves:
        found = _classify(walk, leave, part)
        if isinstance(found, str):
            walk.refused.append((leave.addr, found))
        elif found is not None:
            sites.append(found)
    if walk.strayed:  # a site may be no instruction at all
        sites = []
    return FunctionExits(addr, tuple(sites), tuple(sorted(walk.refused)))


def _scan_part(walk: _Walk, index: int) -> None:
    start, code = walk.parts[index]
    scan = scan_flow(code, start)
    walk.targets += scan.inner_targets
    for leave in scan.exits:
        walk.leaves.append((leave, index))
        if leave.target:
            walk.adopt(leave.target)
    hidden = walk.facts.hidden_jumps
    if hidden:
        for place in range(bisect_left(hidden, (start, 0)), bisect_left(hidden, (start + len(code), 0))):
            target = hidden[place][1]
            walk.targets.append(target)
            walk.adopt(target)
    if scan.strays:
        walk.strayed = True
        walk.refused.append(
            (scan.strays[0], "int3 or undecodable bytes in the code: a breakpoint of someone else, or data")
        )
    if scan.last in ("next", "cond"):
        walk.refused.append((scan.end, "falls through into the next function"))


def _classify(walk: _Walk, leave: FlowExit, part: int) -> ExitSite | str | None:
    # None: not an exit after all.
    flow, addr, _, target = leave
    if flow == "ret":
        return _site(walk, leave, part, "ret")
    if flow == "indirect_jump":
        return _indirect(walk, leave, part)
    if flow == "system":
        if _returns_to_next(walk, leave, part):
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
        return _conditional(walk, leave, part)
    del addr
    return _site(walk, leave, part, kind)


def _returns_to_next(walk: _Walk, leave: FlowExit, part: int) -> bool:
    # sync_core(): 68 imm32; 48 cf      push $1f; iretq; 1:      serialises and goes on with the next instruction.
    start, code = walk.parts[part]
    offset = leave.addr - start
    after = (leave.addr + 2) & 0xFFFFFFFF
    return code[max(offset - 5, 0) : offset + 2] == b"\x68" + after.to_bytes(4, "little") + b"\x48\xcf"


def _reenters(walk: _Walk, target: int) -> bool:
    # A jump to the function's own first byte passes its pad again: a tail call to itself, not a loop.
    return target == walk.func_addr and isinstance(entry_site(target, walk.parts[0][1]), EntrySite)


def _conditional(walk: _Walk, leave: FlowExit, part: int) -> ExitSite | str:
    start, code = walk.parts[part]
    offset = leave.addr - start
    opcode = code[offset + leave.size - 6 : offset + leave.size - 4]
    # 7x rel8: jcc near its target.
    if leave.size == 2 and code[offset] & 0xF0 == 0x70:
        return _by_trap(walk, leave, part, "cond_tail_jump", _no_room(leave))
    # 0f 80 .. 0f 8f: jcc rel32, perhaps behind a branch-hint prefix. loop and jrcxz have no room.
    if leave.size < 6 or opcode[0] != 0x0F or opcode[1] & 0xF0 != 0x80:
        return _no_room(leave)
    return _site(walk, leave, part, "cond_tail_jump")


def _no_room(leave: FlowExit) -> str:
    return f"a {leave.size}-byte conditional jump to another function has no room for a jump"


def _by_trap(walk: _Walk, leave: FlowExit, part: int, kind: ExitKind, no_room: str) -> ExitSite | str:
    """The exit's instruction as a site of INT3; why not, where that cannot be."""
    start, code = walk.parts[part]
    _, addr, size, target = leave
    facts = walk.facts
    if not facts.trapping:
        return f"{no_room}, and {facts.no_traps}" if facts.no_traps else no_room
    why = facts.refused.reason(addr)
    if why is not None:
        return f"{no_room}, and no INT3 may be put here: {why}"
    if facts.reserved and facts.reserved.overlap(addr, addr + size):
        return "the guest itself rewrites this place (a static key or static call)"
    return ExitSite(addr, code[addr - start : addr - start + size], walk.func_addr, kind, size, target or None)


def _indirect(walk: _Walk, leave: FlowExit, part: int) -> ExitSite | str | None:
    start, code = walk.parts[part]
    offset = leave.addr - start
    insn = code[offset : offset + leave.size]
    if not walk.facts.jump_tables:
        return _site(walk, leave, part, "indirect_tail_jump")
    modrm = insn[insn.index(0xFF) + 1]
    # ff /4 with SIB (rm = 100b) and memory operand: jmp [table + index*8], a switch inside the function.
    if modrm >> 6 != 3 and modrm & 7 == 4:
        return "a jump through a table: where it goes is not known"
    return "an indirect jump: a switch inside the function or a tail call, which is not known"


def _site(walk: _Walk, leave: FlowExit, part: int, kind: ExitKind) -> ExitSite | str:
    start, code = walk.parts[part]
    _, addr, size, target = leave
    offset = addr - start
    window = size if size > JUMP_SIZE else JUMP_SIZE
    old = code[offset : offset + window]
    if size < window:
        if len(old) < window or (old != _RET_INT3 and not _is_padding(old[size:], code[offset + window :])):
            no_room = f"a {size}-byte {_WORDS[kind]} with live code behind it has no room for a jump"
            return _by_trap(walk, leave, part, kind, no_room)
        if any_inside(walk.targets, addr, addr + window):
            no_room = f"a branch lands inside the {window} bytes of this {_WORDS[kind]}"
            return _by_trap(walk, leave, part, kind, no_room)
    reserved = walk.facts.reserved
    if reserved and reserved.overlap(addr, addr + window):
        return "the guest itself rewrites this place (a static key or static call)"
    return ExitSite(addr, old, walk.func_addr, kind, size, target or None)


def _is_padding(tail: bytes, beyond: bytes) -> bool:
    # Only int3 and whole nops; a nop may begin in the window and end beyond it.
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
