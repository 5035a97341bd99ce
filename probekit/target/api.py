"""Define the contract that every transport keeps: :class:`Target`.

A target is a virtual machine, stopped or running, under a debugger. Addresses
are guest *virtual* addresses as the chosen vCPU maps them; sizes are bytes. As
in gdb's all-stop mode all vCPUs stop and run together, and each stop has one reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from probekit.errors import MemoryAccessError

__all__ = ("BreakKind", "NoteHold", "Regs", "StopReason", "Target", "Vcpu", "ignore_hold", "unreadable")

Vcpu = int
"""A vCPU as the stub numbers its threads (QEMU: 1, 2, ...)."""

NoteHold = Callable[[bool | None], None]
"""Called with True when the machine is stopped and ours to set running, with False when it runs or is paused.

Called with None once we have let it go in order, or could not get to it. After a connection that was lost there is no
such call.
"""


def ignore_hold(_: bool | None) -> None:
    """Do nothing: nobody wants to know whether we have the machine stopped."""


BreakKind = Literal["software", "hardware", "watch_write", "watch_read", "watch_access"]


@dataclass(frozen=True, slots=True)
class Regs:
    """The general registers of one vCPU."""

    values: dict[str, int]
    """By name: the 16 general registers (``rax`` .. ``r15``), ``rip``, ``eflags`` and ``cs ss ds es fs gs``.

    Where the stub has them, also ``fs_base gs_base k_gs_base cr0 cr2 cr3 cr4 cr8 efer``.
    """
    raw: bytes
    """The stub's whole ``g`` reply, so that a write keeps the registers that have no name here; empty through gdb."""
    foreign_runs: int | None = field(default=None, compare=False)
    """:attr:`Target.foreign_runs` when they were read; None where nobody counts."""

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    def replace(self, **changes: int) -> Regs:
        """Return a copy with some registers changed. The target that writes it updates ``raw``.

        Raises :class:`KeyError` for a register that is not there.
        """
        unknown = changes.keys() - self.values.keys()
        if unknown:
            raise KeyError(f"no such register: {sorted(unknown)}")
        return replace(self, values={**self.values, **changes})

    @property
    def in_user_mode(self) -> bool:
        """True at CPL 3 (the low two bits of CS)."""
        return self.values["cs"] & 3 == 3


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why the machine stopped."""

    kind: Literal["breakpoint", "watch", "interrupt", "exited"]
    """``breakpoint`` stands for a finished step too; ``interrupt`` mostly says that we asked for the stop."""
    signal: int
    """The signal's number as the stub gives it (5 trap, 2 interrupt); 0 when the machine ended under gdb."""
    vcpu: Vcpu
    """The vCPU that stopped."""
    raw: str
    """What the stub or gdb sent for this stop, for messages; it may be cut short."""
    watch_addr: int | None = None
    """The address of the watchpoint, for ``watch``."""
    watch_kind: BreakKind | None = None
    """The kind of the watchpoint, for ``watch``; None where the stub does not say it."""


class Target(Protocol):
    """A virtual machine under a debugger. Every wait has a limit. Its errors are those of :mod:`probekit.errors`.

    Connecting stops the machine. ``read``, ``write`` and ``regs`` need it
    stopped: a call on a running machine raises :class:`TargetError`.

    Others may stop the machine too: an operator in the hypervisor's monitor, a migration, the hypervisor itself. Such
    a machine is *paused*. We never set it running: after ``resume`` or ``detach`` it stays as it is, until whoever
    paused it lets it run. ``running`` is True meanwhile, and ``wait`` finds no stop.
    """

    @property
    def name(self) -> str:
        """The target as the user gave it, e.g. ``unix:/run/gdb.sock``."""
        ...

    @property
    def running(self) -> bool: ...

    @property
    def paused(self) -> bool:
        """Whether somebody else has stopped the machine, as far as that is known.

        It is known exactly after each call that needs the machine stopped. A machine that was found paused when we
        connected counts as well.
        """
        ...

    @property
    def foreign_runs(self) -> int:
        """How often somebody else let the machine run while we had it stopped. What was read before is outdated."""
        ...

    def read(self, addr: int, size: int) -> bytes:
        """Return exactly ``size`` bytes, read in packets of the stub's size. Raises :class:`MemoryAccessError`."""
        ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Read many ``(addr, size)`` ranges at once, pipelined; None where one is unreadable."""
        ...

    def write(self, addr: int, data: bytes) -> None: ...

    def write_once(self, addr: int, data: bytes, foreign_runs: int) -> None:
        """Write a few bytes unless the machine ran since :attr:`foreign_runs` was so.

        Raises :class:`MachineRan`, with nothing written, :class:`MemoryAccessError`.
        """
        ...

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """Write many ``(addr, data)`` at once, pipelined, in order.

        Raises :class:`MemoryAccessError` for the first refusal, after all replies have arrived.
        """
        ...

    def vcpus(self) -> tuple[Vcpu, ...]: ...

    def regs(self, vcpu: Vcpu) -> Regs: ...

    def set_regs(self, vcpu: Vcpu, regs: Regs) -> None:
        """Write a vCPU's registers.

        Raises :class:`MachineRan` when the machine ran, by somebody else, since ``regs`` were read: nothing is written.
        """
        ...

    def resume(self) -> None:
        """Let every vCPU run, and return at once. A paused machine stays paused until whoever paused it resumes it."""
        ...

    def step(self, vcpu: Vcpu) -> StopReason:
        """Execute one instruction on one vCPU, with the others stopped. Raises :class:`GuestPaused` when paused."""
        ...

    def wait(self, timeout: float) -> StopReason | None:
        """Return the next stop, or None when ``timeout`` seconds pass and the machine still runs.

        None as well as soon as somebody pauses it.
        """
        ...

    def stop(self, timeout: float = 10.0) -> StopReason:
        """Stop a running machine and return why it stopped; it may have stopped by itself just before."""
        ...

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None: ...

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None: ...

    def monitor(self, command: str) -> str:
        """Return what the hypervisor's monitor (QEMU: HMP) prints for a command. Raises :class:`UnsupportedError`."""
        ...

    def own_pause(self) -> None:
        """Take the pause for one of our own, since an earlier probekit made it: the machine may be set running."""
        ...

    def detach(self) -> None:
        """Clear our breakpoints, let the machine run unless it is paused, and close. Safe to call twice."""
        ...


def unreadable(addr: int, size: int) -> MemoryAccessError:
    """Make the error for ``size`` bytes of guest memory that :meth:`Target.read` cannot read."""
    return MemoryAccessError(
        f"guest memory {addr:#x} ({size} bytes) cannot be read",
        addr=addr,
        size=size,
        hint="not mapped in the address space of the vCPU looked through",
    )
