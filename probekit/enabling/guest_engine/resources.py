"""What one enabling holds in the guest: its memory, and everything that it has registered with the kernel.

acquire                      memory, modules held, the watchdog
announce_traps, take_traps   our trap handler on the kernel's lists
announce_calls, connect      our functions at its tracepoints
...
release                      give everything back; what cannot be given back safely stays, silent and in the journal
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from probekit.consumer.events import ProbeIdentity
from probekit.enabling.api import MemoryFactory
from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.guest_engine.callbacks import Callbacks
from probekit.enabling.guest_engine.data_memory import ProgramData
from probekit.enabling.guest_engine.heartbeat import Heartbeat
from probekit.enabling.guest_engine.plan import GuestPlan
from probekit.enabling.guest_engine.stubs import BuiltCode
from probekit.enabling.guest_engine.traps import check_registered
from probekit.enabling.registrations import Registered
from probekit.enabling.release import Holdings, release
from probekit.errors import GuestError
from probekit.guest.calls import LIST_ENTRY_KINDS, ListEntryKind, MemoryKind
from probekit.guest.linux import Allocation
from probekit.guest.safepoint import SafePoint
from probekit.guest.tracepoints import BatchRoutine
from probekit.guest.watchdog import Watchdog
from probekit.patch.hooks import Hook
from probekit.patch.journal_payloads import DIE_NOTIFIER, Registration
from probekit.patch.recovery_table import HEADER_SIZE

__all__ = (
    "EngineMemory",
    "GuestResources",
)


class EngineMemory(NamedTuple):
    """The memory of one enabling."""

    slot: Allocation
    """A word on each CPU, which leads to the CPU's block."""
    data: Allocation
    """The program's data; it begins with the activity word."""
    traps: Allocation | None
    """The structures that the kernel's lists of trap handlers lead to, if there are any."""
    code: Allocation
    """Executable memory; it begins with the recovery table's header."""


class GuestResources:
    """Everything that one enabling holds in the guest."""

    def __init__(self, access: GuestAccess, plan: GuestPlan, make_memory: MemoryFactory, *, quiet: float) -> None:
        """Prepare, but take nothing yet. ``quiet``: seconds to wait at the end until nobody is in our code."""
        self._access = access
        self._plan = plan
        self._make_memory = make_memory
        self._quiet = quiet
        self.memory: list[Allocation] = []
        """Oldest first."""
        self.program_data: ProgramData | None = None
        """The program's data as it is read: a copy of it once the memory is given back."""
        self.heartbeat: Heartbeat | None = None
        """None on a kernel whose timers are not known. Its probes then go on for as long as nobody recovers it."""
        self._registered = Registered(access.facts, access.text, access.log)
        self._traps: list[Registration] = []
        self._calls: Callbacks | None = None

    # -- taking ------------------------------------------------------------------------------------------------------

    def acquire(self, *, data: int, code: int) -> EngineMemory:
        """Take all memory, hold the modules and start the watchdog, at one safe point. ``data``, ``code``: bytes."""
        plan, services = self._plan, self._access.facts.services
        with self._access.calls() as point:
            slot = self._allocate(point, "percpu", 8)
            main = self._allocate(point, "data", data)
            traps = self._allocate(point, "data", plan.traps.data_size) if plan.traps is not None else None
            executable = self._allocate(point, "exec", code)
            services.make_executable(point, executable)
            self._hold_modules(point)
            self.program_data = ProgramData(
                self._make_memory(main),
                main.addr,
                plan=plan.data,
                layout=plan.layout,
                program=plan.program,
                cpus=plan.cpus,
                probes={s.number: ProbeIdentity(s.probe.id, s.probe.name) for s in plan.sites},
                clock=self._access.clock,
            )
            self._start_heartbeat(point, main, executable, self.program_data)
        return EngineMemory(slot, main, traps, executable)

    def _allocate(self, point: SafePoint, kind: MemoryKind, size: int) -> Allocation:
        return self._take(self._access.facts.services.allocate(point, kind, size))

    def _take(self, memory: Allocation) -> Allocation:
        self.memory.append(memory)
        self._access.log.allocated(memory)
        return memory

    def _hold_modules(self, point: SafePoint) -> None:
        """Hold the modules that own what calls us, and those whose text we change."""
        facts, sites = self._access.facts, self._plan.sites
        owners = {s.site.owner for s in sites if isinstance(s.site, Hook)}
        changed = {s.probe.function.module for s in sites if s.probe.function is not None}
        owners |= {facts.modules[name] for name in changed & facts.modules.keys()}
        if owners:
            owned = sorted(owners - {0})
            self._calls = Callbacks(facts.tracepoints, facts.module_refs, owned, self._access.text, self._registered)
            self._calls.hold(point)

    def _start_heartbeat(self, point: SafePoint, data: Allocation, code: Allocation, program_data: ProgramData) -> None:
        services = self._access.facts.watchdog
        if services is not None:
            dog = Watchdog(words=data.addr + self._plan.data.size, function=code.addr + HEADER_SIZE)
            self.heartbeat = Heartbeat(
                services, dog, activity=data.addr, memory=program_data.memory, registered=self._registered
            )
            self.heartbeat.start(point, self._access.text)

    def announce_traps(self, hooks: Sequence[tuple[ListEntryKind, int]]) -> None:
        """Write to the journal what the kernel's lists of trap handlers will lead to."""
        self._traps = [Registration(kind, (addr,)) for kind, addr in hooks]
        self._registered.add(self._traps)

    def take_traps(self) -> None:
        """Have the kernel call our trap handler, and see that it will, before there is a site that traps."""
        if not self._traps:
            return
        services, facts = self._access.facts.services, self._access.facts.traps
        with self._access.calls() as point:
            for hook in self._traps:
                (addr,) = hook.words
                services.traps.add(point, LIST_ENTRY_KINDS[hook.kind], addr)
                if hook.kind == DIE_NOTIFIER and facts is not None:
                    check_registered(self._access.text, facts, addr)

    def announce_calls(self, built: BuiltCode) -> None:
        """Write the tracepoints to the journal."""
        if self._calls is not None:
            self._calls.announce(built.tracepoint_probes, BatchRoutine(built.caller, built.table))

    def connect(self) -> None:
        """Have the kernel call our functions at its tracepoints."""
        if self._calls is not None and self._calls.announced:
            with self._access.calls() as point:
                self._calls.connect(point)

    # -- meanwhile ---------------------------------------------------------------------------------------------------

    def send_heartbeat(self) -> None:
        """Send the guest's watchdog a heartbeat, if it is due."""
        if self.heartbeat is not None:
            self.heartbeat.send()

    def silence(self) -> None:
        """Make clauses do nothing from now on."""
        if self.program_data is not None:
            self.program_data.silence()

    # -- giving back -------------------------------------------------------------------------------------------------

    def release(self, *, bypassed: bool, keep: str = "") -> list[str]:
        """Give everything back (:func:`probekit.enabling.release.release`), and keep a copy of what is to be read.

        ``bypassed``, ``keep``: as in :class:`probekit.enabling.release.Holdings`. Returns a message for what is left.
        """
        access = self._access
        self.heartbeat = None  # the watchdog's timer is stopped next
        problems = release(
            Holdings(
                target=access.target,
                text=access.text,
                facts=access.facts,
                log=access.log,
                clock=access.clock,
                safe_point=lambda: access.safe_point(ending=True),
                memory=self.memory,
                registered=self._registered,
                limit=self._quiet,
                bypassed=bypassed,
                keep=keep,
                silence=self.silence,
                last_look=self._check_clauses,
                copy=self._freeze,
            )
        )
        self.memory = []  # what is left is the journal's
        return problems

    def _check_clauses(self) -> None:
        """Raise :class:`GuestError` when a clause has not ended, by its CPU's own word."""
        inside = self.program_data.cpus_in_clauses() if self.program_data is not None else []
        if inside:
            raise GuestError(f"a clause has not ended on CPU {inside[0]}")

    def _freeze(self) -> None:
        if self.program_data is not None:
            self.program_data.freeze()
