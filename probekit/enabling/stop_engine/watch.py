"""``mem`` probes: watched memory, and which access each stop of the guest was for.

    stop (T05 ... watch:ADDR)  ->  which vCPUs have made an access        the stub names one, the others are asked
                               ->  which instruction, which bytes         decoded, from the registers behind it
                               ->  old and new value                      from a copy of the watched memory

The copy is compared at each stop: what changed and was not seen (a device's DMA, another mapping of the same page,
QEMU 7.2's atomic instructions on a page watched for both reads and writes) is counted in ``unseen``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from probekit.enabling.stop_engine.last_insn import LastInstruction
from probekit.enabling.stop_engine.unreported_hits import UnreportedHits, WatchTarget
from probekit.errors import GuestError, TargetError, UnsupportedError
from probekit.isa.access import Access
from probekit.patch.edits import TextMemory
from probekit.providers.api import Probe, Watched
from probekit.target.api import BreakKind, Regs, StopReason, Vcpu
from probekit.target.watchpoints import Watchpoint, plan_watchpoints

__all__ = ("MAX_WATCHES", "WatchHit", "WatchSite", "Watcher")

MAX_WATCHES: Final = 100
"""QEMU looks at each watchpoint for each access to a watched page."""

_KINDS: Final[dict[str, BreakKind]] = {"read": "watch_read", "write": "watch_write"}
_VALUE: Final = 8
_KERNEL: Final = 1 << 63
_ROOT: Final = 0x000F_FFFF_FFFF_E000  # CR3 without PCID, and without the bit that isolated page tables differ in
_MOST_SPACES: Final = 64


class WatchSite(NamedTuple):
    """One ``mem`` probe of an enabling. ``number``: its place in the enabling."""

    number: int
    probe: Probe
    watched: Watched
    clauses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WatchHit:
    """One access to one watched range. ``args``: ``arg0`` .. ``arg4`` of :mod:`probekit.providers.mem`."""

    site: WatchSite
    vcpu: Vcpu
    regs: Regs
    args: tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Made:
    """An access by a vCPU that is stopped behind it. ``access.addr`` is known."""

    vcpu: Vcpu
    regs: Regs
    pc: int
    access: Access

    def part_in(self, watched: Watched) -> tuple[int, int] | None:
        """Address and size of what lies in the range."""
        addr = self.access.addr or 0
        begin = max(addr, watched.addr)
        end = min(addr + self.access.size, watched.addr + watched.size)
        return (begin, end - begin) if begin < end else None


class Watcher:
    """``start_of``: where the kernel function around an address begins; ``landings``: see :class:`UnreportedHits`.

    ``unseen``: changes of watched memory that no stop told of; ``undecoded``: stops whose instruction is not known;
    both only grow.
    """

    def __init__(
        self,
        target: WatchTarget,
        text: TextMemory,
        sites: Sequence[WatchSite],
        *,
        landings: Sequence[int],
        start_of: Callable[[int], int | None],
    ) -> None:
        self._target = target
        self._text = text
        self.sites = tuple(sites)
        self._ranges = tuple(dict.fromkeys((s.watched.addr, s.watched.size) for s in sites))
        self._in_kernel = all(addr & _KERNEL for addr, _ in self._ranges)
        self._unreported = UnreportedHits(target, landings)
        self._vcpu: Vcpu = 1
        self._last = LastInstruction(self._code, start_of)
        self._set: list[Watchpoint] = []
        self._copies: dict[tuple[int, int], dict[int, bytes]] = {}
        self.unseen = 0
        self.undecoded = 0

    @property
    def lost_steps(self) -> int:
        """Single steps whose trap was lost."""
        return self._unreported.lost_steps

    def arm(self) -> None:
        """Set every watchpoint; the guest is stopped. All or nothing.

        Raises :class:`UnsupportedError` and :class:`GuestError`.
        """
        if len(self.sites) > MAX_WATCHES:
            raise UnsupportedError(
                f"{len(self.sites)} watched ranges are too many (the limit is {MAX_WATCHES})", feature="mem"
            )
        for addr, size in self._ranges:
            if addr & _KERNEL:
                data = self._text.read_many([(addr, size)])[0]
                if data is None:
                    raise GuestError(f"{size} bytes at {addr:#x} cannot be watched: the guest has no memory there")
                self._copies[addr, size] = {0: data}
            else:
                self._copies[addr, size] = {}
        wanted = [Watchpoint(s.watched.addr, s.watched.size, _KINDS[s.watched.access]) for s in self.sites]
        try:
            for point in plan_watchpoints(wanted, hardware=_in_hardware(self._target)):
                self._target.set_breakpoint(point.addr, point.kind, point.size)
                self._set.append(point)
        except BaseException:
            self.disarm()
            raise

    def disarm(self) -> None:
        """Clear every watchpoint; the guest is stopped. Safe to call twice."""
        self._unreported.wait_for_displaced()
        while self._set:
            point = self._set.pop()
            self._target.clear_breakpoint(point.addr, point.kind, point.size)

    def hits(self, stop: StopReason) -> list[WatchHit]:
        """What every vCPU has done to watched memory since the last stop. The guest is stopped and stays so.

        To be called at each stop, whatever it was for: an access may have been made at the same moment.
        """
        if not self._set:
            return []
        self._unreported.put_back_returned()
        made: list[_Made] = []
        for vcpu in self._target.vcpus():
            regs = self._target.regs(vcpu)
            if stop.kind == "watch" and vcpu == stop.vcpu:
                told = (stop.watch_addr or 0, stop.watch_kind or "watch_access")
            else:
                late = self._unreported.query(vcpu, regs)
                if late is None:
                    continue
                told = late
            made += self._made(vcpu, regs, *told)
        return self._values(made)

    # -- which instruction ------------------------------------------------------------------------------------------

    def _made(self, vcpu: Vcpu, regs: Regs, addr: int, kind: BreakKind) -> list[_Made]:
        self._vcpu = vcpu
        found = self._last.find(regs, lambda access: self._fits(access, kind))
        if found is None:
            self.undecoded += 1
            return [_Made(vcpu, regs, regs["rip"], self._whole(addr, kind))]
        made = []
        for access in found.accesses:
            if access.addr is None:
                place = self._whole(addr, kind)
                access = Access(place.addr, access.size or place.size, access.read, access.write)
            if self._fits(access, kind="watch_access"):
                made.append(_Made(vcpu, regs, found.pc, access))
        return made

    def _fits(self, access: Access, kind: BreakKind) -> bool:
        if access.addr is None or (kind == "watch_read" and not access.read):
            return False
        if kind == "watch_write" and not access.write:
            return False
        return any(access.addr < addr + size and addr < access.addr + access.size for addr, size in self._ranges)

    def _whole(self, addr: int, kind: BreakKind) -> Access:
        """All that the watchpoint covers, for want of something better."""
        size = next((p.size for p in self._set if p.addr == addr), 1)
        return Access(addr, size, read=kind != "watch_write", write=kind != "watch_read")

    def _code(self, addr: int, size: int) -> bytes | None:
        if addr & _KERNEL:
            return self._text.read_many([(addr, size)])[0]
        return self._through(self._vcpu, addr, size)

    def _through(self, vcpu: Vcpu, addr: int, size: int) -> bytes | None:
        self._target.use_memory_of(vcpu)
        try:
            return self._target.read_many([(addr, size)])[0]
        finally:
            self._target.use_memory_of(None)

    # -- which values -----------------------------------------------------------------------------------------------

    def _values(self, made: Sequence[_Made]) -> list[WatchHit]:
        """Every access in the order in which they must have been made, as hits of the sites that watch for it."""
        hits: list[WatchHit] = []
        for watched in self._ranges:
            here = Watched(*watched, access="write")
            mine = [one for one in made if one.part_in(here) is not None]
            for space in self._spaces(watched, mine):
                hits += self._values_in(here, space, [m for m in mine if self._space(watched[0], m.regs) == space])
        return hits

    def _values_in(self, watched: Watched, space: int, made: list[_Made]) -> list[WatchHit]:
        key = (watched.addr, watched.size)
        now = self._now(watched, made)
        if now is None:
            return []
        copies = self._copies[key]
        known = bytearray(copies.pop(space, now))
        writers = sorted((m for m in made if m.access.write), key=lambda m: _is_there(m, watched, now))
        hits: list[WatchHit] = []
        for one in (*(m for m in made if not m.access.write), *writers):
            addr, size = one.part_in(watched) or (watched.addr, 0)
            at = slice(addr - watched.addr, addr - watched.addr + size)
            old = bytes(known[at])
            if one.access.write:
                last = one is writers[-1]
                known[at] = now[at] if last else _stored(one, addr, size) or now[at]
            args = (addr, size, _integer(old), _integer(known[at]), one.pc)
            hits += [WatchHit(site, one.vcpu, one.regs, args) for site in self.sites if _wants(site, key, one)]
        if known != now and any(s.watched.access == "write" for s in self.sites if s.watched[:2] == key):
            self.unseen += 1
        copies[space] = now
        if len(copies) > _MOST_SPACES:
            del copies[next(iter(copies))]
        return hits

    def _spaces(self, watched: tuple[int, int], made: Sequence[_Made]) -> list[int]:
        """Kernel memory is one; a user's address is another place in each address space."""
        if watched[0] & _KERNEL:
            return [0]
        return list(dict.fromkeys(self._space(watched[0], m.regs) for m in made))

    @staticmethod
    def _space(addr: int, regs: Regs) -> int:
        return 0 if addr & _KERNEL else regs.values.get("cr3", 0) & _ROOT

    def _now(self, watched: Watched, made: Sequence[_Made]) -> bytes | None:
        if watched.addr & _KERNEL:
            return self._text.read_many([(watched.addr, watched.size)])[0]
        return self._through(made[0].vcpu, watched.addr, watched.size)


def _wants(site: WatchSite, key: tuple[int, int], made: _Made) -> bool:
    access = made.access.write if site.watched.access == "write" else made.access.read
    return site.watched[:2] == key and access


def _stored(made: _Made, addr: int, size: int) -> bytes | None:
    """The bytes that it stored at ``addr``, where they are still known."""
    if made.access.value is None or made.access.addr is None:
        return None
    return made.access.value[addr - made.access.addr :][:size]


def _is_there(made: _Made, watched: Watched, now: bytes) -> bool:
    """Whether what it stored is what memory holds: then it may have been the last."""
    addr, size = made.part_in(watched) or (watched.addr, 0)
    return _stored(made, addr, size) == now[addr - watched.addr :][:size]


def _integer(data: bytes | bytearray) -> int:
    return int.from_bytes(data[:_VALUE], "little")


def _in_hardware(target: WatchTarget) -> bool:
    """Whether watchpoints are the processor's debug registers: KVM's, and any stub's that does not say otherwise."""
    try:
        return "disabled" not in target.monitor("info kvm")
    except (UnsupportedError, TargetError):
        return True
