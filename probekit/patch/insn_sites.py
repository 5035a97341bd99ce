"""Find the sites at a function's instructions, from its live bytes.

Every instruction is a site unless it cannot be executed from a copy, the guest
rewrites it by itself, or no trap is allowed there; then the reason is returned.
An instruction of five bytes or more becomes a jump, unless another jump lands in the
middle of it; any other becomes INT3::

    offset 0   0f 1f 44 00 00    nop5           jump
    offset 5   41 54             push r12       INT3
    offset 7   e8 ....           call f         jump; the copy pushes the original return address

When another tracer has put a breakpoint or a jump into the middle of a function, it is not
known where the instructions after it begin: none of those is a site.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from probekit.isa.decode import DecodeError, Flow, Insn, decode_run, scan_flow
from probekit.isa.relocate import RelocateError, relocate, why_not_movable
from probekit.patch.sites import JUMP_SIZE, REWRITTEN_BY_GUEST, InsnSite, TextFacts

__all__ = ("FunctionInsns", "instruction_sites")

_TRIAL_DISTANCE = 1 << 28  # from a site to a copy that is made only to see whether one can be made
_ENDS: frozenset[Flow] = frozenset({"ret", "jump", "indirect_jump", "trap", "system"})
_FOREIGN = "int3, a foreign jump or undecodable bytes before it: another tracer's probe, or data"


@dataclass(frozen=True, slots=True)
class FunctionInsns:
    """Lists the instructions of one function. All offsets are bytes from the function's start."""

    addr: int
    """Address of the function."""
    sites: dict[int, InsnSite]
    """The instructions that can be probed, by offset."""
    refused: dict[int, str]
    """The reason for each instruction that cannot be probed, by offset."""
    starts: tuple[int, ...]
    """The offsets of all instructions, in order."""
    end: int
    """The offset after the last instruction."""
    targets: tuple[int, ...]
    """Sorted addresses in the function where jumps may land."""
    jumps_known: bool
    """Whether ``targets`` has every address where a jump may land."""

    def why_not(self, offset: int) -> str:
        """Return why there is no site at ``offset``. Inside an instruction the reason names the nearest starts."""
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
    """Find the sites at the instructions of the function at ``addr`` with the live bytes ``code`` (padding included).

    ``cold``: ``(address, bytes)`` of its cold parts. Their instructions are no sites, but may jump into the function.
    ``wanted``: the offsets to look at, all by default; other instructions are neither sites nor refused.
    """
    scan = scan_flow(code, addr)
    end = scan.end - addr
    outside = [scan_flow(cold_code, start) for start, cold_code in cold]
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
            # An int3 after a return is the compiler's padding. One that is reached is a foreign breakpoint.
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
    """Yield every instruction. Where the bytes are no instruction, yield None and end."""
    try:
        yield from decode_run(code, addr)
    except DecodeError:
        yield None


def _targets(addr: int, size: int, inner: list[int], facts: TextFacts) -> list[int]:
    """Return the sorted addresses where branches of any function, static keys and exception fix-ups may land."""
    hidden = facts.hidden_jumps
    own_hidden = hidden[bisect_left(hidden, (addr, 0)) : bisect_left(hidden, (addr + size, 0))]
    side = facts.side_entries or ()
    elsewhere = side[bisect_left(side, addr) : bisect_left(side, addr + size)]
    return sorted((*inner, *elsewhere, *(target for _, target in own_hidden)))


def _switches_gs(code: bytes, addr: int) -> str | None:
    """Return why no instruction of a function with swapgs is a site, or None for any other function."""
    # Between two swapgs even the kernel's own int3 handler would use the wrong per-CPU area.
    if b"\x0f\x01\xf8" not in code:
        return None
    if any(insn is not None and insn.mnemonic == "swapgs" for insn in _instructions(code, addr)):
        return "its function switches the GS base (swapgs), and no trap is safe in between"
    return None


def _leaves_text(insn: Insn, facts: TextFacts) -> bool:
    """Tell whether it jumps or calls out of the kernel's code, as optimised kprobes and other tracers do."""
    if insn.target is None or not facts.text or insn.target in facts.text:
        return False
    return facts.pads is None or insn.addr not in facts.pads  # ftrace's own calls may go to its trampolines


def _refusal(insn: Insn, facts: TextFacts) -> str | None:
    """Return why this instruction cannot be probed, or None."""
    if facts.reserved and facts.reserved.overlap(insn.addr, insn.end):
        return REWRITTEN_BY_GUEST
    if facts.pads is not None and insn.addr in facts.pads and not insn.is_nop5:
        return f"site is already changed ({insn.raw.hex(' ')}): the guest's own ftrace or kprobes"
    if insn.is_endbr and facts.branch_tracking:
        return "indirect calls must land on this endbr64"
    if insn.addr in facts.faulting and not facts.fixups:
        return "a fault in it is handled by its address, and this kernel takes no other exception table"
    return why_not_movable(insn)


def _site(insn: Insn, func_addr: int, targets: list[int], facts: TextFacts) -> InsnSite | str:
    """Return the site of an instruction, for a jump or for INT3, or why neither is possible."""
    try:
        relocate(insn.raw, insn.addr, insn.addr ^ _TRIAL_DISTANCE)
    except RelocateError as error:
        return error.reason
    inside = bisect_left(targets, insn.end) - bisect_right(targets, insn.addr)
    trap = insn.size < JUMP_SIZE or inside > 0
    if trap and not facts.trapping:
        no_room = f"a {insn.size}-byte instruction has no room for a jump"
        return f"{no_room}, and {facts.no_traps}" if facts.no_traps else no_room
    return InsnSite(insn.addr, insn.raw, func_addr, trap)
