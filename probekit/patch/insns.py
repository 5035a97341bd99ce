"""Where a function can be probed instruction by instruction, from its live bytes.

Every instruction is a site but those that cannot be executed from a copy, that
the guest rewrites by itself, or that stand where no trap is allowed; each of
these has its reason. An instruction of five bytes or more takes a jump, a
shorter one INT3::

    offset 0   0f 1f 44 00 00    nop5           jump
    offset 5   41 54             push r12       INT3
    offset 7   e8 ....           call f         jump; the copy pushes the original return address

Somebody else's breakpoint or jump in the middle of a function hides where the
instructions behind it begin: from there on nothing is a site.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from probekit.isa.decode import DecodeError, Flow, Insn, decode_run, scan_flow
from probekit.isa.relocate import RelocateError, relocate, why_not_movable
from probekit.patch.sites import JUMP_SIZE, InsnSite, TextFacts

__all__ = ("FunctionInsns", "instruction_sites")

_NEAR = 1 << 28  # a distance that a stub may have from its site; only to see whether a copy can be made
_ENDS: frozenset[Flow] = frozenset({"ret", "jump", "indirect_jump", "trap", "system"})
_REWRITTEN = "the guest itself rewrites this place (a static key or static call)"
_FOREIGN = "int3, a foreign jump or undecodable bytes before it: somebody else's probe, or data"


@dataclass(frozen=True, slots=True)
class FunctionInsns:
    """Every instruction of the function at ``addr``, by its offset. ``end``: the offset behind the last one.

    ``refused``: offset to the reason, for those that are no site; ``starts``: of all of them, in order.
    ``targets``: sorted, where jumps may land; ``jumps_known``: there are no others.
    """

    addr: int
    sites: dict[int, InsnSite]
    refused: dict[int, str]
    starts: tuple[int, ...]
    end: int
    targets: tuple[int, ...]
    jumps_known: bool

    def why_not(self, offset: int) -> str:
        """Why there is no site at ``offset``, with the nearest starts where it is inside an instruction."""
        if offset in self.refused:
            return self.refused[offset]
        if not 0 <= offset < self.end:
            return f"offset {offset} is outside the function, whose last instruction ends at {self.end}"
        at = bisect_right(self.starts, offset)
        before, after = self.starts[at - 1 : at], self.starts[at : at + 1]
        near = " and ".join(str(o) for o in (*before, *after))
        return f"offset {offset} is in the middle of an instruction; the nearest begin at {near}"


def instruction_sites(
    addr: int,
    code: bytes,
    facts: TextFacts,
    cold: Iterable[tuple[int, bytes]] = (),
    *,
    wanted: Container[int] | None = None,
) -> FunctionInsns:
    """Analyse the function at ``addr`` whose live bytes (padding included) are ``code``.

    ``cold``: its parts elsewhere, ``(address, bytes)``; their instructions are no sites, but they jump into it.
    ``wanted``: the offsets that are of interest, all by default: others are neither sites nor refused.
    """
    scan = scan_flow(code, addr)
    end = scan.end - addr
    outside = [scan_flow(text, start) for start, text in cold]
    landing = (leave.target for part in outside for leave in part.exits if addr <= leave.target < addr + len(code))
    targets = _targets(addr, len(code), [*scan.inner_targets, *landing], facts)
    sites: dict[int, InsnSite] = {}
    refused: dict[int, str] = {}
    starts: list[int] = []
    whole_function = _switches_gs(code[:end], addr)
    tables = facts.jump_tables and any(leave.flow == "indirect_jump" for leave in scan.exits)
    before: Flow = "ret"
    foreign = False
    for insn in _instructions(code[:end], addr):
        if insn is None:
            end = max((start + 1 for start in starts), default=0)
            break
        if insn.mnemonic == "int3":
            # The compiler's stop behind a return is padding. What is reached is somebody else's breakpoint.
            foreign = foreign or before not in _ENDS or tables or insn.addr in targets
            if not foreign:
                continue
        before = insn.flow
        foreign = foreign or _leaves_text(insn, facts)
        offset = insn.addr - addr
        starts.append(offset)
        if wanted is not None and offset not in wanted:
            continue
        reason = _FOREIGN if foreign else facts.refused.reason(insn.addr) or whole_function or _refusal(insn, facts)
        if reason is not None:
            refused[offset] = reason
            continue
        site = _site(insn, addr, targets, facts)
        if isinstance(site, str):
            refused[offset] = site
        else:
            sites[offset] = site
    unknown = facts.jump_tables and any(leave.flow == "indirect_jump" for part in outside for leave in part.exits)
    known = not (foreign or tables or unknown or any(part.strays for part in outside))
    return FunctionInsns(addr, sites, refused, tuple(starts), end, tuple(targets), known)


def _instructions(code: bytes, addr: int) -> Iterator[Insn | None]:
    """Every instruction; None where the bytes are none, and nothing behind it."""
    try:
        yield from decode_run(code, addr)
    except DecodeError:
        yield None


def _targets(addr: int, size: int, inner: list[int], facts: TextFacts) -> list[int]:
    """Where control may come in, sorted: the function's own branches, others', static keys, exception fix-ups."""
    hidden = facts.hidden_jumps
    ours = range(bisect_left(hidden, (addr, 0)), bisect_left(hidden, (addr + size, 0)))
    side = facts.side_entries or ()
    elsewhere = side[bisect_left(side, addr) : bisect_left(side, addr + size)]
    return sorted((*inner, *elsewhere, *(hidden[place][1] for place in ours)))


def _switches_gs(code: bytes, addr: int) -> str | None:
    # Between two swapgs even the kernel's own int3 handler would use the wrong per-CPU area.
    if b"\x0f\x01\xf8" not in code:
        return None
    if any(insn is not None and insn.mnemonic == "swapgs" for insn in _instructions(code, addr)):
        return "its function switches the GS base (swapgs), and no trap is safe in between"
    return None


def _leaves_text(insn: Insn, facts: TextFacts) -> bool:
    """An optimised kprobe, a live patch, another tracer: a jump or call to where no code of the kernel's is."""
    if insn.target is None or not facts.text or insn.target in facts.text:
        return False
    return facts.pads is None or insn.addr not in facts.pads  # ftrace's own calls may go to its trampolines


def _refusal(insn: Insn, facts: TextFacts) -> str | None:
    if facts.reserved and facts.reserved.overlap(insn.addr, insn.end):
        return _REWRITTEN
    if facts.pads is not None and insn.addr in facts.pads and not insn.is_nop5:
        return f"site is already changed ({insn.raw.hex(' ')}): the guest's own ftrace or kprobes"
    if insn.is_endbr and facts.branch_tracking:
        return "indirect calls must land on this endbr64"
    if insn.addr in facts.faulting and not facts.fixups:
        return "a fault in it is handled by its address, and this kernel takes no other exception table"
    return why_not_movable(insn)


def _site(insn: Insn, func_addr: int, targets: list[int], facts: TextFacts) -> InsnSite | str:
    try:
        relocate(insn.raw, insn.addr, insn.addr ^ _NEAR)
    except RelocateError as error:
        return error.reason
    inside = bisect_left(targets, insn.end) - bisect_right(targets, insn.addr)
    trap = insn.size < JUMP_SIZE or inside > 0
    if trap and not facts.trapping:
        no_room = f"a {insn.size}-byte instruction has no room for a jump"
        return f"{no_room}, and {facts.no_traps}" if facts.no_traps else no_room
    return InsnSite(insn.addr, insn.raw, func_addr, trap)
