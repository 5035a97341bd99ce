"""Tells whether the kernel that was attached to still runs: by QMP's events, its tick counter, or a look at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from probekit.errors import GuestGone, MemoryAccessError, SymbolError, TargetError, TargetLost
from probekit.guest.health import LivenessMonitor, check_events, check_status, has_panicked, panic_error, reboot_error
from probekit.guest.memory import PauseClock
from probekit.kernel.kernel import Kernel
from probekit.kernel.page_tables import PhysicalMemory, root_candidates, translate_many
from probekit.session.identity import boot_cookie
from probekit.target.api import Regs, Target

if TYPE_CHECKING:
    from probekit.target.qmp import Qmp

__all__ = ("GuestLife",)

_PAGING = 1 << 31  # in CR0
_BETWEEN_TRIES = 0.03  # seconds between two looks at a guest that seems to be gone
_TRIES = 3

ReadMany = Callable[[Sequence[tuple[int, int]]], list[bytes | None]]


class GuestLife:
    """Watches one boot of one guest."""

    def __init__(
        self,
        target: Target,
        kernel: Kernel,
        clock: PauseClock,
        cookie: bytes,
        *,
        qmp: Qmp | None,
        read_stopped: ReadMany,
        read_running: ReadMany | None,
        read: ReadMany,
    ) -> None:
        """Begin with the guest stopped.

        ``cookie``: identifies this boot. ``read_stopped``: reads kernel memory while the guest is stopped;
        ``read_running``: while it runs, None where that is not possible; ``read``: in either case, with a stop if need
        be.
        """
        self.gone: GuestGone | None = None
        """How the guest ended, once that was noticed."""
        self._target = target
        self._kernel = kernel
        self._clock = clock
        self._cookie = cookie
        self._qmp = qmp
        self._read = read
        self._monitor = LivenessMonitor(
            lambda: self._ticks(read_running) if read_running is not None else None,
            self.same_boot,
            self.panicked,
            stopped_ticks=lambda: self._ticks(read_stopped),
        )
        self._image_at = kernel.address_space.translate(kernel.base)

    def alive(self, stopped: bool) -> None:
        """Raise :class:`GuestGone` when the guest was rebooted or died.

        ``stopped``: whether the guest is stopped, so that it can be looked at; otherwise only QMP's events tell.
        """
        try:
            if self._qmp is not None:
                check_events(self._qmp.events())
            if stopped:
                check_status(self._target)
                self._outlast_firmware()
                if not self.same_boot():
                    raise reboot_error()
                if self.panicked():
                    raise panic_error()
        except GuestGone as error:
            self.gone = error
            raise

    def check(self) -> bool:
        """Raise :class:`GuestGone` when the guest was rebooted or died. Does not stop it as long as it ticks.

        Returns whether it was just seen to tick. Raises another :class:`GuestError` when a snapshot was loaded.
        """
        self.alive(False)
        if self._monitor.due():
            with self._clock.paused():
                self.alive(True)
                self._monitor.look()
        return self._monitor.take_ticking()

    def why_lost(self, error: TargetLost) -> GuestGone | TargetLost:
        """Return what QMP says about the end of the guest; ``error``, the lost connection, where it says nothing."""
        try:
            self.alive(False)
        except GuestGone as gone:
            return gone
        except TargetError:
            return error  # QMP is lost too
        return error

    def same_boot(self) -> bool:
        """Return whether the kernel that runs is the one that was attached to. The guest is stopped."""
        try:
            return self._is_mapped() and boot_cookie(self._kernel) == self._cookie
        except (MemoryAccessError, SymbolError):
            return False

    def panicked(self) -> bool:
        """Return whether the guest has panicked. Stops it for a moment where its RAM is no shared file."""
        return has_panicked(self._kernel.find, self._read)

    def _is_mapped(self) -> bool:
        """Return whether a vCPU's page tables map the kernel where it was. The guest is stopped.

        After a reset its memory and page tables are still there for a while, but no vCPU uses them.
        """
        target = self._target
        known = [values for vcpu in target.vcpus() if "cr3" in (values := target.regs(vcpu).values)]
        if not known or self._image_at is None or not isinstance(target, PhysicalMemory):
            return True  # this stub does not say
        roots = root_candidates(Regs(values, b"") for values in known if values.get("cr0", _PAGING) & _PAGING)
        base = self._kernel.base
        with target.physical_memory():
            return any(translate_many(target, root, [base])[base] == self._image_at for root in roots)

    def _outlast_firmware(self) -> None:
        """Let the guest run for a moment while its kernel seems to be gone.

        Firmware in system management mode maps no kernel, but it never runs for long.
        """
        for _ in range(_TRIES):
            if self.same_boot():
                return
            self._target.resume()
            time.sleep(_BETWEEN_TRIES)
            self._target.stop()

    def _ticks(self, read_many: ReadMany) -> int | None:
        jiffies = self._kernel.find("jiffies_64", "jiffies")
        data = read_many([(jiffies, 8)])[0] if jiffies is not None else None
        return int.from_bytes(data, "little") if data is not None else None
