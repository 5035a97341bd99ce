"""Where a function can be probed: its entry pad, and every way out of it.

Pure analysis of *live* text bytes. A *site* is an address and the old bytes of
a *window*, the run of bytes that a 5-byte jump will replace. A window holds one
instruction, and after it only bytes that are never executed. ::

    entry   0f 1f 44 00 00            nop dword ptr [rax+rax]    ftrace's pad, after endbr64 or not
    ret     c3 cc cc cc cc            ret; int3 x 4              a return thunk patched back to ret
    thunk   e9 xx xx xx xx            jmp __x86_return_thunk     a ret too
    tail    e9 xx xx xx xx            jmp other_function
    cond    0f 8x xx xx xx xx         jcc other_function
    jmp *   ff e0 cc 90 90            jmp rax; int3; nop x 2     a tail call through a pointer

Where a guest can take our INT3 (``TextFacts.trapping``), an exit that has no room for a
jump is a site as well: its window is the instruction alone, and its first byte becomes INT3.

Compilers split a function: ``name.cold`` holds its unlikely blocks elsewhere.
Jumps between the two are not exits; the exits of the cold part are the
parent's. What leaves a function but cannot be patched is named, with the reason.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from probekit.isa.decode import ENDBR64, NOP5, Leave, decode_one, scan_flow
from probekit.patch.ranges import NO_RANGES, Ranges, any_inside
from probekit.patch.refused import NO_REFUSED, RefusedText
from probekit.records import record

__all__ = (
    "NO_PAD",
    "ColdLookup",
    "EntrySite",
    "ExitKind",
    "ExitSite",
    "FunctionExits",
    "InsnSite",
    "Refusal",
    "Site",
    "TextFacts",
    "entry_site",
    "exit_sites",
    "may_trap",
    "rewritten_size",
    "traps",
)

JUMP_SIZE = 5  # e9 rel32

ExitKind = Literal["ret", "return_thunk", "tail_jump", "cond_tail_jump", "indirect_tail_jump"]

ColdLookup = Callable[[int], "tuple[int, bytes] | None"]
"""Given the target of a jump out of a function: the (address, bytes) of that function's cold part there, or None."""

# What may stand where endbr64 was: the kernel overwrites ("seals") those that no pointer needs.
_ENDBRS = (
    ENDBR64,
    b"\x66\x0f\x1f\x00",  # nop word ptr [rax]       gen_endbr_poison() of Linux 6.1
    b"\x0f\x1f\x40\xd6",  # nop dword ptr [rax-42]   the later form of the same
)
NO_PAD = "no nop pad: notrace or assembly code"
_RET_INT3 = b"\xc3\xcc\xcc\xcc\xcc"  # ret; int3 x 4


class EntrySite(NamedTuple):
    """The pad of function ``func_addr``. ``addr``: of the nop itself, 4 further on after an endbr64.

    Sites are tuples, not dataclasses: "everything" is 90,000 of them.
    """

    addr: int
    old: bytes
    func_addr: int


class ExitSite(NamedTuple):
    """One way out of function ``func_addr``.

    ``old``: the window; its first ``insn_size`` bytes are the instruction.
    ``target``: of a direct jump, else None. Only at ``ret`` and
    ``return_thunk`` does RAX hold what the function returns.
    """

    addr: int
    old: bytes
    func_addr: int
    kind: ExitKind
    insn_size: int
    target: int | None


class InsnSite(NamedTuple):
    """An instruction of function ``func_addr``, or several under one jump. ``old``: all of their bytes.

    ``trap``: its first byte becomes INT3; otherwise there is room for a jump.
    ``first``: bytes of the first instruction where there are several, else 0.
    """

    addr: int
    old: bytes
    func_addr: int
    trap: bool
    first: int = 0

    @property
    def inner(self) -> range:
        """The addresses at which no thread may stand when the jump is written."""
        return range(self.addr + 1, self.addr + len(self.old)) if self.first else range(0)


Site = EntrySite | ExitSite | InsnSite


def traps(site: Site) -> bool:
    """Whether a site is reached by INT3 and not by a jump."""
    return site.trap if isinstance(site, InsnSite) else len(site.old) < JUMP_SIZE


def may_trap(site: Site) -> bool:
    """Whether a site may have to be reached by INT3: also where a thread may stand in the bytes of its jump."""
    return traps(site) or (isinstance(site, InsnSite) and site.first > 0)


@record
class Refusal:
    """Why nothing can be patched at ``addr``; ``reason`` reads after a colon."""

    addr: int
    reason: str


@record
class FunctionExits:
    """All ways out of one function.

    ``unprobeable``: (address, reason) of those that cannot be patched. With
    neither sites nor unprobeable ones, the function never returns.
    """

    addr: int
    sites: tuple[ExitSite, ...]
    unprobeable: tuple[tuple[int, str], ...]

    @property
    def complete(self) -> bool:
        """True when no way out is missed."""
        return not self.unprobeable

    @property
    def never_returns(self) -> bool:
        return not self.sites and not self.unprobeable


@record
class TextFacts:
    """What is known of the kernel's text beyond one function's bytes. All of it is optional; more of it refuses less.

    ``starts``: every function's address: a jump to one is a tail call, elsewhere it is refused.
    ``return_thunks``: addresses of ``__x86_return_thunk`` and what replaces it.
    ``reserved``: ranges the guest itself rewrites (static keys and calls, alternatives).
    ``hidden_jumps``: sorted (from, to): jumps not to be seen in the text, as static keys and exception fix-ups.
    ``jump_tables``: False for a kernel built with retpolines (``-fno-jump-tables``): ``jmp rax`` is then a tail call.
    ``pads``: addresses of all of ftrace's pads, or None: tells a pad that is in use from code that begins with a call.
    ``text``: where executable code of the kernel and its modules is; empty: not known.
    ``trapping``: INT3 can be taken in this guest; ``no_traps``: else the reason, where it is known.
    ``refused``: where INT3 must not be put although it can be taken.
    ``faulting``: instructions with an exception-table entry; ``fixups``: a copy of one can have an entry as well.
    ``branch_tracking``: indirect calls must land on endbr64 (IBT).
    ``side_entries``: sorted, where jumps of other functions land in the middle of one; None: not looked for, and then
    no two instructions are put under one jump.
    """

    starts: frozenset[int] = frozenset()
    return_thunks: frozenset[int] = frozenset()
    reserved: Ranges = NO_RANGES
    hidden_jumps: tuple[tuple[int, int], ...] = ()
    jump_tables: bool = True
    pads: frozenset[int] | None = None
    text: Ranges = NO_RANGES
    trapping: bool = False
    no_traps: str = ""
    refused: RefusedText = NO_REFUSED
    faulting: frozenset[int] = frozenset()
    fixups: bool = False
    branch_tracking: bool = False
    side_entries: tuple[int, ...] | None = None


_NO_FACTS = TextFacts()


def rewritten_size(code: bytes) -> int:
    """How many bytes the guest rewrites at a static key or static call whose live bytes are ``code`` (2 or more).

    A static key is as long as the jump that it becomes: 2 bytes near its target, 5 otherwise. Most of the places
    that seem to overlap one are returns right behind a short one.
    """
    # eb rel8         jmp short
    # 66 90           xchg ax, ax: the 2-byte nop
    return 2 if code[:1] == b"\xeb" or code[:2] == b"\x66\x90" else 5


def entry_site(addr: int, code: bytes, facts: TextFacts = _NO_FACTS) -> EntrySite | Refusal:
    """The pad of the function at ``addr``, whose first bytes are ``code`` (9 or more), or why it has none."""
    offset = 4 if code[:4] in _ENDBRS else 0
    pad = code[offset : offset + JUMP_SIZE]
    if pad != NOP5:
        if facts.pads is not None and addr + offset not in facts.pads:
            return Refusal(addr, NO_PAD)
        return Refusal(addr, _why_no_pad(pad))
    if facts.reserved and facts.reserved.overlap(addr + offset, addr + offset + JUMP_SIZE):
        return Refusal(addr, "the guest itself rewrites this place (a static key or static call)")
    return EntrySite(addr + offset, NOP5, addr)


def _why_no_pad(pad: bytes) -> str:
    if pad[:1] == b"\xe8":  # call rel32
        return f"site is already changed ({pad.hex(' ')}): the guest's own ftrace or kprobes"
    if pad[:1] == b"\xe9":  # jmp rel32
        return f"site is already changed ({pad.hex(' ')}): an optimised kprobe, a live patch or another tracer"
    if pad[:1] == b"\xcc":  # int3
        return f"site is already changed ({pad.hex(' ')}): a kprobe or a debugger's breakpoint"
    return NO_PAD


@dataclass(slots=True)
class _Walk:
    """The state of one function's analysis: its parts (address ranges with bytes), and what was found."""

    func_addr: int
    facts: TextFacts
    cold_at: ColdLookup | None
    parts: list[tuple[int, bytes]]
    leaves: list[tuple[Leave, int]] = field(default_factory=list)  # with the index of the part
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
    addr: int, code: bytes, facts: TextFacts = _NO_FACTS, *, cold_at: ColdLookup | None = None
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
    walk.targets += scan.inner
    for leave in scan.leaves:
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


def _classify(walk: _Walk, leave: Leave, part: int) -> ExitSite | str | None:
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


def _returns_to_next(walk: _Walk, leave: Leave, part: int) -> bool:
    # sync_core(): 68 imm32; 48 cf      push $1f; iretq; 1:      serialises and goes on with the next instruction.
    start, code = walk.parts[part]
    offset = leave.addr - start
    after = (leave.addr + 2) & 0xFFFFFFFF
    return code[max(offset - 5, 0) : offset + 2] == b"\x68" + after.to_bytes(4, "little") + b"\x48\xcf"


def _reenters(walk: _Walk, target: int) -> bool:
    # A jump to the function's own first byte passes its pad again: a tail call to itself, not a loop.
    return target == walk.func_addr and isinstance(entry_site(target, walk.parts[0][1]), EntrySite)


def _conditional(walk: _Walk, leave: Leave, part: int) -> ExitSite | str:
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


def _no_room(leave: Leave) -> str:
    return f"a {leave.size}-byte conditional jump to another function has no room for a jump"


def _by_trap(walk: _Walk, leave: Leave, part: int, kind: ExitKind, no_room: str) -> ExitSite | str:
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


def _indirect(walk: _Walk, leave: Leave, part: int) -> ExitSite | str | None:
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


def _site(walk: _Walk, leave: Leave, part: int, kind: ExitKind) -> ExitSite | str:
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


_WORDS: dict[ExitKind, str] = {
    "ret": "return",
    "return_thunk": "return",
    "tail_jump": "tail jump",
    "cond_tail_jump": "conditional tail jump",
    "indirect_tail_jump": "indirect tail jump",
}


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
