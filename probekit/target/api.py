"""The one contract that every transport keeps: :class:`Target`.

A target is a stopped or running virtual machine seen through a debugger's
eyes. Addresses are guest *virtual* addresses as the chosen vCPU maps them;
sizes are bytes. The vocabulary is gdb's: all-stop, one stop reason at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ("BreakKind", "Regs", "StopReason", "Target", "Vcpu")

Vcpu = int
"""A vCPU as the stub numbers its threads (QEMU: 1, 2, ...)."""

BreakKind = Literal["software", "hardware", "watch_write", "watch_read", "watch_access"]


@dataclass(frozen=True, slots=True)
class Regs:
    """The general registers of one vCPU.

    ``values``: the 16 general registers by name (``rax`` .. ``r15``), ``rip``,
    ``eflags``, and ``cs ss ds es fs gs``; and, where the stub has them,
    ``fs_base gs_base k_gs_base cr0 cr2 cr3 cr4 cr8 efer``.
    ``raw``: the whole ``g`` reply, written back with only named fields changed.
    """

    values: dict[str, int]
    raw: bytes

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    def replace(self, **changes: int) -> Regs:
        """A copy with some registers changed; ``raw`` is brought up to date by the target that writes it."""
        unknown = changes.keys() - self.values.keys()
        if unknown:
            raise KeyError(f"no such register: {sorted(unknown)}")
        return Regs(values={**self.values, **changes}, raw=self.raw)

    @property
    def in_user_mode(self) -> bool:
        """True at CPL 3 (the low two bits of CS)."""
        return self.values["cs"] & 3 == 3


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why the machine stopped. ``signal``: the stub's number (5 trap, 2 interrupt). ``vcpu``: who stopped.

    ``kind``: ``breakpoint`` (or a finished step), ``watch``, ``interrupt`` (we asked), ``exited``.
    ``watch_addr``: the watchpoint's address for ``watch``, ``watch_kind`` its kind. ``raw``: the stop packet's text.
    """

    kind: Literal["breakpoint", "watch", "interrupt", "exited"]
    signal: int
    vcpu: Vcpu
    raw: str
    watch_addr: int | None = None
    watch_kind: BreakKind | None = None


class Target(Protocol):
    """A virtual machine under a debugger. Every wait has a limit; errors are :mod:`probekit.errors`.

    State: connecting stops the machine. ``read``/``write``/``regs`` need it
    stopped (a call on a running machine raises :class:`TargetError`).
    """

    @property
    def name(self) -> str:
        """The target as the user gave it, e.g. ``unix:/run/gdb.sock``."""
        ...

    @property
    def running(self) -> bool: ...

    def read(self, addr: int, size: int) -> bytes:
        """Exactly ``size`` bytes, or :class:`MemoryAccessError`. Chunked to the stub's packet size."""
        ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Many ``(addr, size)`` at once, pipelined; None where unreadable."""
        ...

    def write(self, addr: int, data: bytes) -> None: ...

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """Many ``(addr, data)`` at once, pipelined, in order. Raises on the first refusal, after all replies are in."""
        ...

    def vcpus(self) -> tuple[Vcpu, ...]: ...

    def regs(self, vcpu: Vcpu) -> Regs: ...

    def set_regs(self, vcpu: Vcpu, regs: Regs) -> None: ...

    def resume(self) -> None:
        """Let every vCPU run; returns at once."""
        ...

    def step(self, vcpu: Vcpu) -> StopReason:
        """One instruction on one vCPU, the others held."""
        ...

    def wait(self, timeout: float) -> StopReason | None:
        """The next stop, or None when ``timeout`` seconds pass and the machine still runs."""
        ...

    def stop(self, timeout: float = 10.0) -> StopReason:
        """Stop a running machine. If it stopped by itself meanwhile, that reason is returned."""
        ...

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None: ...

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None: ...

    def monitor(self, command: str) -> str:
        """The hypervisor's monitor (QEMU: HMP), or :class:`UnsupportedError`."""
        ...

    def detach(self) -> None:
        """Clear our breakpoints, let the machine run, close. Safe to call twice."""
        ...
