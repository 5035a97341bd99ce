"""Build what the INT3 sites of one enabling need: the handler and its tables, and the structures that register them.

    code    ... stubs | notifier | hash of sites | exception table of the copies
    data    notifier block | bpf symbol (the kernel writes to both while they are on its lists)

All of it is complete and verified before the first site goes live. It is removed from the
kernel's lists only when every site has its old bytes and no CPU can be in the handler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probekit.codegen.notifier import NOTIFIER_SIZE, TrapLayout, notifier
from probekit.enabling.sites import EnabledSite
from probekit.errors import GuestError, UnsupportedError
from probekit.guest.calls import ListEntryKind
from probekit.guest.trap_registration import EXTABLE_ENTRY, TrapFacts, die_block, exception_table, ksym_block
from probekit.guest.trap_table import build_table, table_size
from probekit.patch.edits import TextMemory
from probekit.patch.hooks import Hook, MarkerHook
from probekit.patch.sites import InsnSite, may_need_trap

__all__ = ("TrapCode", "TrapPlan", "check_registered", "plan_traps")

_ALIGN = 64
_BLOCK_ROOM = 64  # bytes for the notifier block, so that the symbol after it is aligned
_MAX_HANDLERS = 256  # at most so many notifiers of the chain are read


@dataclass(frozen=True, slots=True)
class TrapCode:
    """The bytes that an enabling with INT3 sites adds to our memory."""

    code: bytes
    """Bytes to put after the stubs."""
    block: bytes
    """Bytes to put into our data memory."""
    hooks: tuple[tuple[ListEntryKind, int], ...]
    """The kind and address of each structure to register with the kernel, in order of registration."""


@dataclass(frozen=True, slots=True)
class TrapPlan:
    """The number and kind of an enabling's INT3 sites, from which their code is built."""

    facts: TrapFacts
    count: int
    """How many addresses may have an INT3."""
    faulting: tuple[int, ...]
    """Addresses of probed instructions that may fault: their copies need a fix-up."""

    @property
    def code_size(self) -> int:
        """How many bytes go after the stubs, at most."""
        sizes = (NOTIFIER_SIZE, table_size(self.count), EXTABLE_ENTRY.size * len(self.faulting))
        return sum(size + _ALIGN for size in sizes)

    @property
    def data_size(self) -> int:
        """How many bytes of data memory it needs."""
        return _BLOCK_ROOM + (self.facts.ksym.size if self.facts.ksym is not None else 0)

    def build(
        self, stubs: Mapping[int, int], copies: Mapping[int, int], *, addr: int, code: tuple[int, int], data: int
    ) -> TrapCode:
        """Build all of it.

        ``stubs``, ``copies``: see :class:`probekit.enabling.guest_engine.stubs.BuiltCode`; ``addr``: the address after
        the stubs; ``code``: start and end of all our executable memory; ``data``: address of our data memory.
        """
        out = bytearray()
        hooks: list[tuple[ListEntryKind, int]] = []
        block = bytearray(self.data_size)
        if stubs:
            table = build_table(stubs)
            facts = self.facts
            layout = TrapLayout(facts.int3, facts.regs, facts.ip, facts.cs)
            where = {"capacity": table.capacity, "shift": table.shift, "limit": table.limit}
            table_addr = addr + NOTIFIER_SIZE
            out += notifier(layout, table=table_addr, addr=addr, **where).ljust(NOTIFIER_SIZE, b"\xcc")  # int3
            out += table.data
            block[: facts.block.size] = die_block(facts.block, addr)
            hooks.append(("die_notifier", data))
        if self.faulting and self.facts.ksym is not None:
            at = addr + len(out)
            fixups = [(copies[site], self.facts.fixups[site]) for site in self.faulting]
            out += exception_table(fixups, at)
            symbol = data + _BLOCK_ROOM
            start, end = code
            block[_BLOCK_ROOM:] = ksym_block(
                self.facts.ksym, symbol, start=start, end=end, table=at, entries=len(fixups)
            )
            # This one is registered first, because a copy may fault from the first trap on.
            hooks.insert(0, ("bpf_ksym", symbol + self.facts.ksym.ksym))
        return TrapCode(bytes(out), bytes(block), tuple(hooks))


def plan_traps(sites: Sequence[EnabledSite], facts: TrapFacts | None, *, staged: int = 0) -> TrapPlan | None:
    """Return the plan for the INT3s of ``sites``, or None when there are none.

    ``staged``: how many sites have an INT3 for a moment while they are changed in stages.
    Raises :class:`UnsupportedError` when the guest cannot take INT3.
    """
    count = staged + len({s.site.addr for s in sites if not isinstance(s.site, Hook) and may_need_trap(s.site)})
    count += sum(
        len(s.site.loads) for s in sites if isinstance(s.site, MarkerHook)
    )  # each load has an INT3 while it is changed
    fixups = facts.fixups if facts is not None else {}
    faulting = sorted({s.site.addr for s in sites if isinstance(s.site, InsnSite) and s.site.addr in fixups})
    if not count and not faulting:
        return None
    if facts is None:
        raise UnsupportedError("INT3 cannot be taken in this guest", feature="INT3")
    return TrapPlan(facts, count, tuple(faulting))


def check_registered(text: TextMemory, facts: TrapFacts, block: int) -> None:
    """Check that our block is on the kernel's chain. The guest is stopped. Raises :class:`GuestError` otherwise."""
    if facts.chain is None:
        return
    at, seen = _word(text, facts.chain), 0
    while at and seen < _MAX_HANDLERS:
        if at == block:
            return
        at, seen = _word(text, at + facts.block.following), seen + 1
    raise GuestError("the guest's kernel did not take our trap handler", hint="no site was changed")


def _word(text: TextMemory, addr: int) -> int:
    data = text.read_many([(addr, 8)])[0]
    if data is None:
        raise GuestError(f"the guest's chain of trap handlers leads to unreadable memory at {addr:#x}")
    return int.from_bytes(data, "little")
