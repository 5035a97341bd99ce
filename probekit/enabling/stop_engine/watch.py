"""Serve ``mem`` probes: find which vCPU has made which access to watched memory.

    stop (T05 ... watch:ADDR)  ->  which vCPUs have made an access        the stub names one, the others are queried
                               ->  which instruction, which bytes         decoded, from the registers after it
                               ->  old and new value                      from a copy of the watched memory

The copy is compared with memory at each stop. Changes that no stop reported (a device's DMA, another mapping of the
same page, QEMU 7.2's atomic instructions on a page watched for both reads and writes) are counted in ``unseen``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from probekit.enabling.stop_engine.last_insn import LastInstruction
from probekit.enabling.stop_engine.unreported_hits import UnreportedHits, WatchTarget
from probekit.errors import GuestError, TargetError, UnsupportedError
from probekit.isa.access import MemoryAccess
from probekit.patch.edits import TextMemory
from probekit.providers.api import Probe, WatchedRange
from probekit.target.api import BreakKind, Regs, StopReason, Vcpu
from probekit.target.watchpoints import Watchpoint, plan_watchpoints

__all__ = ("MAX_WATCHES", "WatchHit", "WatchSite", "Watcher")

MAX_WATCHES: Final = 100
"""The most watched ranges: QEMU checks each watchpoint at each access to a watched page."""

_KINDS: Final[dict[str, BreakKind]] = {"read": "watch_read", "write": "watch_write"}
_VALUE: Final = 8  # bytes of a value that probes see
_KERNEL: Final = 1 << 63
_ROOT: Final = 0x000F_FFFF_FFFF_E000  # CR3 without PCID, and without the bit in which isolated page tables differ
_MAX_SPACES: Final = 64  # most address spaces with a copy of one range


class WatchSite(NamedTuple):
    """One ``mem`` probe of an enabling."""

    number: int
    """Its index in this enabling."""
    probe: Probe
    watched: WatchedRange
    clauses: tuple[int, ...]
    """Numbers of the clauses, in program order."""


@dataclass(frozen=True, slots=True)
class WatchHit:
    """One access to one watched range."""

    site: WatchSite
    vcpu: Vcpu
    regs: Regs
    """The registers after the access."""
    args: tuple[int, int, int, int, int]
    """``arg0`` .. ``arg4`` of :mod:`probekit.providers.mem`."""


@dataclass(frozen=True, slots=True)
class _VcpuAccess:
    """An access by a vCPU, which has stopped after it."""

    vcpu: Vcpu
    regs: Regs
    pc: int
    """Address of the instruction."""
    access: MemoryAccess
    """Its address is known."""

    def part_in(self, watched: WatchedRange) -> tuple[int, int] | None:
        """Return the address and size of the part of the access in a watched range; None when it is outside."""
        addr = self.access.addr or 0
        begin = max(addr, watched.addr)
        end = min(addr + self.access.size, watched.addr + watched.size)
        return (begin, end - begin) if begin < end else None


class Watcher:
    """Sets the watchpoints of one enabling, and finds the accesses."""

    def __init__(
        self,
        target: WatchTarget,
        text: TextMemory,
        sites: Sequence[WatchSite],
        *,
        landings: Sequence[int],
        start_of: Callable[[int], int | None],
    ) -> None:
        """Prepare, but set no watchpoint yet.

        ``text``: kernel memory while the guest is stopped. ``landings``: see :class:`UnreportedHits`.
        ``start_of``: returns where the kernel function around an address begins, None when it is not known.
        """
        self._target = target
        self._text = text
        self.sites = tuple(sites)
        self._ranges = tuple(dict.fromkeys((s.watched.addr, s.watched.size) for s in sites))
        self._unreported = UnreportedHits(target, landings)
        self._vcpu: Vcpu = 1
        self._last = LastInstruction(self._code, start_of)
        self._set: list[Watchpoint] = []
        self._copies: dict[tuple[int, int], dict[int, bytes]] = {}
        self.unseen = 0
        """Changes of watched memory that no stop reported; only grows."""
        self.undecoded = 0
        """Accesses whose instruction is not known; only grows."""

    @property
    def lost_steps(self) -> int:
        """How many single steps lost their trap."""
        return self._unreported.lost_steps

    def arm(self) -> None:
        """Set every watchpoint, or none after an error. The guest is stopped.

        Raises :class:`UnsupportedError` for too many ranges or too few debug registers, :class:`GuestError` for a
        range of the kernel where there is no memory.
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
        """Return the accesses of all vCPUs to watched memory since the last stop. The guest is stopped and stays so.

        Call this at every stop, of any kind: a vCPU may have made an access at the same moment.
        """
        if not self._set:
            return []
        self._unreported.put_back_returned()
        accesses: list[_VcpuAccess] = []
        for vcpu in self._target.vcpus():
            regs = self._target.regs(vcpu)
            if stop.kind == "watch" and vcpu == stop.vcpu:
                watchpoint = (stop.watch_addr or 0, stop.watch_kind or "watch_access")
            else:
                unreported = self._unreported.query(vcpu, regs)
                if unreported is None:
                    continue
                watchpoint = unreported
            accesses += self._accesses(vcpu, regs, *watchpoint)
        return self._hits(accesses)

    # -- which instruction ------------------------------------------------------------------------------------------

    def _accesses(self, vcpu: Vcpu, regs: Regs, addr: int, kind: BreakKind) -> list[_VcpuAccess]:
        self._vcpu = vcpu
        found = self._last.find(regs, lambda access: self._fits(access, kind))
        if found is None:
            self.undecoded += 1
            return [_VcpuAccess(vcpu, regs, regs["rip"], self._whole(addr, kind))]
        accesses = []
        for access in found.accesses:
            if access.addr is None:
                whole = self._whole(addr, kind)
                access = MemoryAccess(whole.addr, access.size or whole.size, access.read, access.write)
            if self._fits(access, kind="watch_access"):
                accesses.append(_VcpuAccess(vcpu, regs, found.pc, access))
        return accesses

    def _fits(self, access: MemoryAccess, kind: BreakKind) -> bool:
        if access.addr is None or (kind == "watch_read" and not access.read):
            return False
        if kind == "watch_write" and not access.write:
            return False
        return any(access.addr < addr + size and addr < access.addr + access.size for addr, size in self._ranges)

    def _whole(self, addr: int, kind: BreakKind) -> MemoryAccess:
        """Return an access to the whole watchpoint, for when the exact access is not known."""
        size = next((p.size for p in self._set if p.addr == addr), 1)
        return MemoryAccess(addr, size, read=kind != "watch_write", write=kind != "watch_read")

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

    def _hits(self, accesses: Sequence[_VcpuAccess]) -> list[WatchHit]:
        """Return the hits of all accesses, in the order in which the accesses must have been made."""
        hits: list[WatchHit] = []
        for addr, size in self._ranges:
            watched = WatchedRange(addr, size, access="write")
            inside = [access for access in accesses if access.part_in(watched) is not None]
            for space in self._spaces(addr, inside):
                hits += self._hits_in(watched, space, [a for a in inside if self._space(addr, a.regs) == space])
        return hits

    def _hits_in(self, watched: WatchedRange, space: int, accesses: list[_VcpuAccess]) -> list[WatchHit]:
        """Return the hits of one range in one address space, and bring the copy of the range up to date."""
        key = (watched.addr, watched.size)
        now = self._read_now(watched, accesses)
        if now is None:
            return []
        copies = self._copies[key]
        known = bytearray(copies.pop(space, now))
        writers = sorted((a for a in accesses if a.access.write), key=lambda a: _is_there(a, watched, now))
        hits: list[WatchHit] = []
        for access in (*(a for a in accesses if not a.access.write), *writers):
            addr, size = access.part_in(watched) or (watched.addr, 0)
            part = slice(addr - watched.addr, addr - watched.addr + size)
            old = bytes(known[part])
            if access.access.write:
                last = access is writers[-1]
                known[part] = now[part] if last else _stored(access, addr, size) or now[part]
            args = (addr, size, _integer(old), _integer(known[part]), access.pc)
            hits += [WatchHit(site, access.vcpu, access.regs, args) for site in self.sites if _wants(site, key, access)]
        if known != now and any(s.watched.access == "write" for s in self.sites if s.watched[:2] == key):
            self.unseen += 1
        copies[space] = now
        if len(copies) > _MAX_SPACES:
            del copies[next(iter(copies))]
        return hits

    def _spaces(self, addr: int, accesses: Sequence[_VcpuAccess]) -> list[int]:
        """Return the address spaces of accesses to a range at ``addr``: one for kernel memory, else by CR3."""
        if addr & _KERNEL:
            return [0]
        return list(dict.fromkeys(self._space(addr, access.regs) for access in accesses))

    @staticmethod
    def _space(addr: int, regs: Regs) -> int:
        return 0 if addr & _KERNEL else regs.values.get("cr3", 0) & _ROOT

    def _read_now(self, watched: WatchedRange, accesses: Sequence[_VcpuAccess]) -> bytes | None:
        if watched.addr & _KERNEL:
            return self._text.read_many([(watched.addr, watched.size)])[0]
        return self._through(accesses[0].vcpu, watched.addr, watched.size)


def _wants(site: WatchSite, key: tuple[int, int], access: _VcpuAccess) -> bool:
    of_kind = access.access.write if site.watched.access == "write" else access.access.read
    return site.watched[:2] == key and of_kind


def _stored(access: _VcpuAccess, addr: int, size: int) -> bytes | None:
    """Return the bytes that the access stored at ``addr``, None where they are not known."""
    if access.access.value is None or access.access.addr is None:
        return None
    return access.access.value[addr - access.access.addr :][:size]


def _is_there(access: _VcpuAccess, watched: WatchedRange, now: bytes) -> bool:
    """Return whether memory holds the bytes that the access stored: then it may have been the last one."""
    addr, size = access.part_in(watched) or (watched.addr, 0)
    return _stored(access, addr, size) == now[addr - watched.addr :][:size]


def _integer(data: bytes | bytearray) -> int:
    return int.from_bytes(data[:_VALUE], "little")


def _in_hardware(target: WatchTarget) -> bool:
    """Return whether watchpoints use the processor's debug registers: with KVM, or when the stub does not say."""
    try:
        return "disabled" not in target.monitor("info kvm")
    except (UnsupportedError, TargetError):
        return True
