"""Define the sites where a function can be probed, and find the site at its entry.

A *site* is an address and the old bytes of
a *window*, the run of bytes that a 5-byte jump will replace. A window holds one
instruction, and after it only bytes that are never executed. ::

    entry   0f 1f 44 00 00            nop dword ptr [rax+rax]    ftrace's pad, after endbr64 or not
    ret     c3 cc cc cc cc            ret; int3 x 4              a return thunk patched back to ret
    thunk   e9 xx xx xx xx            jmp __x86_return_thunk     a ret too
    tail    e9 xx xx xx xx            jmp other_function
    cond    0f 8x xx xx xx xx         jcc other_function
    jmp *   ff e0 cc 90 90            jmp rax; int3; nop x 2     a tail jump through a pointer

Where a guest can take our INT3 (``TextFacts.trapping``), an exit that has no room for a
jump is a site as well: its window is the instruction alone, and its first byte becomes INT3.

:mod:`probekit.patch.find_exits` finds the sites at exits and tells their kinds, :mod:`probekit.patch.insn_sites` finds
those at instructions, and :mod:`probekit.patch.detours` builds what replaces each kind. A place that is refused is a
:class:`SiteRefusal`, an entry of ``FunctionExits.unprobeable`` or one of ``FunctionInsns.refused``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from probekit.isa.decode import ENDBR64, NOP5
from probekit.patch.ranges import NO_RANGES, Ranges
from probekit.patch.refused_text import NO_REFUSED, RefusedText
from probekit.records import record

__all__ = (
    "JUMP_SIZE",
    "NO_PAD",
    "REWRITTEN_BY_GUEST",
    "EntrySite",
    "ExitKind",
    "ExitSite",
    "FunctionExits",
    "InsnSite",
    "Site",
    "SiteRefusal",
    "TextFacts",
    "entry_site",
    "may_need_trap",
    "needs_trap",
    "rewritten_size",
)

JUMP_SIZE = 5
"""Bytes of a jump with a 32-bit displacement: e9 rel32."""

ExitKind = Literal["ret", "return_thunk", "tail_jump", "cond_tail_jump", "indirect_tail_jump"]

# What may stand in place of endbr64: the kernel overwrites ("seals") those that no pointer needs.
_ENDBRS = (
    ENDBR64,
    b"\x66\x0f\x1f\x00",  # nop word ptr [rax]       gen_endbr_poison() of Linux 6.1
    b"\x0f\x1f\x40\xd6",  # nop dword ptr [rax-42]   the later form of the same
)
NO_PAD = "no nop pad: notrace or assembly code"
"""Why a function without a pad is refused."""
REWRITTEN_BY_GUEST = "the guest itself rewrites this place (a static key or static call)"
"""Why a place in ``TextFacts.reserved`` is refused."""


class EntrySite(NamedTuple):
    """The 5-byte nop (ftrace's pad) at a function's entry.

    Sites are tuples and not dataclasses because a script may need 90,000 of them.
    """

    addr: int
    """Address of the nop: the function's start, or 4 bytes after it where an endbr64 comes first."""
    old: bytes
    """The bytes of the window."""
    func_addr: int
    """Address of the function."""


class ExitSite(NamedTuple):
    """One way out of a function."""

    addr: int
    """Address of the instruction."""
    old: bytes
    """The bytes of the window; its first ``insn_size`` bytes are the instruction."""
    func_addr: int
    """Address of the function."""
    kind: ExitKind
    """How it leaves. Only at ``ret`` and ``return_thunk`` does RAX hold what the function returns."""
    insn_size: int
    """Bytes of the instruction."""
    target: int | None
    """The address that a direct jump leads to, else None."""


class InsnSite(NamedTuple):
    """An instruction of a function, or several under one jump."""

    addr: int
    """Address of the first instruction."""
    old: bytes
    """The bytes of all these instructions."""
    func_addr: int
    """Address of the function."""
    trap: bool
    """Whether its first byte becomes INT3; otherwise there is room for a jump."""
    first_size: int = 0
    """Bytes of the first instruction where there are several, else 0."""

    @property
    def interior(self) -> range:
        """The addresses at which no thread may be when the jump is written; none for a single instruction."""
        return range(self.addr + 1, self.addr + len(self.old)) if self.first_size else range(0)


Site = EntrySite | ExitSite | InsnSite
"""A place in the guest's text that is patched."""


def needs_trap(site: Site) -> bool:
    """Tell whether a site is patched with INT3 and not with a jump."""
    return site.trap if isinstance(site, InsnSite) else len(site.old) < JUMP_SIZE


def may_need_trap(site: Site) -> bool:
    """Tell whether a site is patched with INT3, or is if a thread is in the bytes of its jump."""
    return needs_trap(site) or (isinstance(site, InsnSite) and site.first_size > 0)


@record
class SiteRefusal:
    """Says why there is no site at an address."""

    addr: int
    """Address of the function."""
    reason: str
    """The reason, worded to stand after a colon."""


@record
class FunctionExits:
    """Lists all ways out of one function."""

    addr: int
    """Address of the function."""
    sites: tuple[ExitSite, ...]
    """The exits that can be patched."""
    unprobeable: tuple[tuple[int, str], ...]
    """(address, reason) of the exits that cannot be patched."""

    @property
    def complete(self) -> bool:
        """Whether every way out is a site."""
        return not self.unprobeable

    @property
    def never_returns(self) -> bool:
        """Whether the function has no way out."""
        return not self.sites and not self.unprobeable


@record
class TextFacts:
    """What is known of the kernel's text beyond one function's bytes. All fields are optional.

    With more facts fewer places are refused.
    """

    starts: frozenset[int] = frozenset()
    """Every function's address. A jump to one is a tail call; a jump to the middle of a function is refused."""
    return_thunks: frozenset[int] = frozenset()
    """Addresses of ``__x86_return_thunk`` and of what replaces it."""
    reserved: Ranges = NO_RANGES
    """Ranges that the guest itself rewrites (static keys and calls, alternatives)."""
    hidden_jumps: tuple[tuple[int, int], ...] = ()
    """Sorted (from, to) of jumps that the text does not show, such as static keys and exception fix-ups."""
    jump_tables: bool = True
    """False for a kernel built with retpolines (``-fno-jump-tables``): ``jmp rax`` is then a tail call."""
    pads: frozenset[int] | None = None
    """Addresses of all of ftrace's pads, or None. They tell a pad that is in use from code that begins with a call."""
    text: Ranges = NO_RANGES
    """Where executable code of the kernel and its modules is; empty when not known."""
    trapping: bool = False
    """Whether INT3 can be taken in this guest."""
    no_traps: str = ""
    """Why INT3 cannot be taken in this guest; empty when it can, or when the reason is not known."""
    refused: RefusedText = NO_REFUSED
    """Functions that must not get INT3 or an instruction probe, although the guest can take INT3."""
    faulting: frozenset[int] = frozenset()
    """Addresses of instructions with an exception-table entry."""
    fixups: bool = False
    """Whether probekit can add an exception-table entry for a copy of such an instruction."""
    branch_tracking: bool = False
    """Whether indirect calls must land on endbr64 (IBT)."""
    side_entries: tuple[int, ...] | None = None
    """Sorted addresses in the middle of a function that jumps of other functions lead to.

    None: they were not looked for, and no two instructions are put under one jump.
    """


NO_FACTS = TextFacts()


def rewritten_size(code: bytes) -> int:
    """Return how many bytes the guest rewrites at a static key or static call with the live bytes ``code`` (2 or more).

    A static key is as long as the jump that it becomes: 2 bytes near its target, 5 otherwise. Taking 5 bytes for each
    would refuse many returns that stand right after a short one.
    """
    # eb rel8         jmp short
    # 66 90           xchg ax, ax: the 2-byte nop
    return 2 if code[:1] == b"\xeb" or code[:2] == b"\x66\x90" else 5


def entry_site(addr: int, code: bytes, facts: TextFacts = NO_FACTS) -> EntrySite | SiteRefusal:
    """Return the pad of the function at ``addr`` with the first bytes ``code`` (9 or more), or why it has none."""
    offset = 4 if code[:4] in _ENDBRS else 0
    pad = code[offset : offset + JUMP_SIZE]
    if pad != NOP5:
        if facts.pads is not None and addr + offset not in facts.pads:
            return SiteRefusal(addr, NO_PAD)
        return SiteRefusal(addr, _why_no_pad(pad))
    if facts.reserved and facts.reserved.overlap(addr + offset, addr + offset + JUMP_SIZE):
        return SiteRefusal(addr, REWRITTEN_BY_GUEST)
    return EntrySite(addr + offset, NOP5, addr)


def _why_no_pad(pad: bytes) -> str:
    """Return the reason for the bytes that stand where a pad could be."""
    if pad[:1] == b"\xe8":  # call rel32
        return f"site is already changed ({pad.hex(' ')}): the guest's own ftrace or kprobes"
    if pad[:1] == b"\xe9":  # jmp rel32
        return f"site is already changed ({pad.hex(' ')}): an optimised kprobe, a live patch or another tracer"
    if pad[:1] == b"\xcc":  # int3
        return f"site is already changed ({pad.hex(' ')}): a kprobe or a debugger's breakpoint"
    return NO_PAD
