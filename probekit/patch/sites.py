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

from typing import Literal, NamedTuple

from probekit.isa.decode import ENDBR64, NOP5
from probekit.patch.ranges import NO_RANGES, Ranges
from probekit.patch.refused import NO_REFUSED, RefusedText
from probekit.records import record

__all__ = (
    "NO_PAD",
    "EntrySite",
    "ExitKind",
    "ExitSite",
    "FunctionExits",
    "InsnSite",
    "Site",
    "SiteRefusal",
    "TextFacts",
    "entry_site",
    "may_trap",
    "rewritten_size",
    "traps",
)

JUMP_SIZE = 5  # e9 rel32

ExitKind = Literal["ret", "return_thunk", "tail_jump", "cond_tail_jump", "indirect_tail_jump"]


# What may stand where endbr64 was: the kernel overwrites ("seals") those that no pointer needs.
_ENDBRS = (
    ENDBR64,
    b"\x66\x0f\x1f\x00",  # nop word ptr [rax]       gen_endbr_poison() of Linux 6.1
    b"\x0f\x1f\x40\xd6",  # nop dword ptr [rax-42]   the later form of the same
)
NO_PAD = "no nop pad: notrace or assembly code"


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
class SiteRefusal:
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


NO_FACTS = TextFacts()


def rewritten_size(code: bytes) -> int:
    """How many bytes the guest rewrites at a static key or static call whose live bytes are ``code`` (2 or more).

    A static key is as long as the jump that it becomes: 2 bytes near its target, 5 otherwise. Most of the places
    that seem to overlap one are returns right behind a short one.
    """
    # eb rel8         jmp short
    # 66 90           xchg ax, ax: the 2-byte nop
    return 2 if code[:1] == b"\xeb" or code[:2] == b"\x66\x90" else 5


def entry_site(addr: int, code: bytes, facts: TextFacts = NO_FACTS) -> EntrySite | SiteRefusal:
    """The pad of the function at ``addr``, whose first bytes are ``code`` (9 or more), or why it has none."""
    offset = 4 if code[:4] in _ENDBRS else 0
    pad = code[offset : offset + JUMP_SIZE]
    if pad != NOP5:
        if facts.pads is not None and addr + offset not in facts.pads:
            return SiteRefusal(addr, NO_PAD)
        return SiteRefusal(addr, _why_no_pad(pad))
    if facts.reserved and facts.reserved.overlap(addr + offset, addr + offset + JUMP_SIZE):
        return SiteRefusal(addr, "the guest itself rewrites this place (a static key or static call)")
    return EntrySite(addr + offset, NOP5, addr)


def _why_no_pad(pad: bytes) -> str:
    if pad[:1] == b"\xe8":  # call rel32
        return f"site is already changed ({pad.hex(' ')}): the guest's own ftrace or kprobes"
    if pad[:1] == b"\xe9":  # jmp rel32
        return f"site is already changed ({pad.hex(' ')}): an optimised kprobe, a live patch or another tracer"
    if pad[:1] == b"\xcc":  # int3
        return f"site is already changed ({pad.hex(' ')}): a kprobe or a debugger's breakpoint"
    return NO_PAD
