"""Allocate the guest memory of one enabling and register with the guest's kernel; at the end free and unregister.

1. ``acquire`` allocates memory, holds modules and starts the watchdog
2. ``announce_traps`` and ``take_traps`` register our trap handler
3. ``announce_calls`` and ``connect`` register our functions at tracepoints
4. ``release`` frees and unregisters everything through :mod:`probekit.enabling.release`. This is also what happens to
   guest memory on SIGTERM, which :mod:`probekit.session.signals` notes. Memory that cannot be freed safely stays
   allocated but inert, and in the journal.
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
from probekit.enabling.registrations import Registrations
from probekit.enabling.release import Holdings, release_holdings
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
    """The allocations of one enabling."""

    slot: Allocation
    """A word on each CPU, which points to the CPU's block."""
    data: Allocation
    """The program's data; it begins with the activity word."""
    traps: Allocation | None
    """The structures that the kernel links into its lists of trap handlers; None when no site has an INT3."""
    code: Allocation
    """Executable memory; it begins with the recovery table's header."""


class GuestResources:
    """Owns the guest memory and the registrations of one enabling."""

    def __init__(self, access: GuestAccess, plan: GuestPlan, make_memory: MemoryFactory, *, quiet: float) -> None:
        """Prepare, but allocate nothing yet. ``quiet``: seconds to wait at the end until no task is in our code."""
        self._access = access
        self._plan = plan
        self._make_memory = make_memory
        self._quiet = quiet
        self.memory: list[Allocation] = []
        """All allocations, oldest first."""
        self.program_data: ProgramData | None = None
        """Reads the program's data; uses a copy after the memory is freed."""
        self.heartbeat: Heartbeat | None = None
        """Sends heartbeats to the watchdog.

        None on a kernel whose timer functions are not known. If probekit is killed, the probes of such a guest stay
        active until somebody recovers it.
        """
        self._registrations = Registrations(access.facts, access.text, access.log)
        self._traps: list[Registration] = []
        self._calls: Callbacks | None = None

    # -- allocating and registering ----------------------------------------------------------------------------------

    def acquire(self, *, data: int, code: int) -> EngineMemory:
        """Allocate all memory, hold the modules and start the watchdog, at one safe point.

        ``data``, ``code``: bytes of data memory and of executable memory.
        """
        plan, services = self._plan, self._access.facts.services
        with self._access.calls() as point:
            # The data first: memory is freed newest first, and by its stamp a recovery knows that the slot is there.
            main = self._allocate(point, "data", data)
            slot = self._allocate(point, "percpu", 8)
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
        memory = self._access.facts.services.allocate(point, kind, size)
        self.memory.append(memory)
        self._access.log.allocated(memory)
        return memory

    def _hold_modules(self, point: SafePoint) -> None:
        """Hold the modules whose tracepoints or markers call us, and the modules whose text we change."""
        facts, sites = self._access.facts, self._plan.sites
        owners = {s.site.owner for s in sites if isinstance(s.site, Hook)}
        changed = {s.probe.function.module for s in sites if s.probe.function is not None}
        owners |= {facts.modules[name] for name in changed & facts.modules.keys()}
        if owners:
            owned = sorted(owners - {0})
            self._calls = Callbacks(facts.tracepoints, facts.module_refs, owned, self._access.text, self._registrations)
            self._calls.hold(point)

    def _start_heartbeat(self, point: SafePoint, data: Allocation, code: Allocation, program_data: ProgramData) -> None:
        services = self._access.facts.watchdog
        if services is not None:
            dog = Watchdog(words=data.addr + self._plan.data.size, function=code.addr + HEADER_SIZE)
            self.heartbeat = Heartbeat(
                services, dog, activity=data.addr, memory=program_data.memory, registrations=self._registrations
            )
            self.heartbeat.start(point, self._access.text)

    def announce_traps(self, hooks: Sequence[tuple[ListEntryKind, int]]) -> None:
        """Write the registrations of our trap handler to the journal."""
        self._traps = [Registration(kind, (addr,)) for kind, addr in hooks]
        self._registrations.add(self._traps)

    def take_traps(self) -> None:
        """Register our trap handler, and check that the kernel has it on its list, before any site can trap."""
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
        """Write the registrations at tracepoints to the journal."""
        if self._calls is not None:
            self._calls.announce(built.tracepoint_probes, BatchRoutine(built.caller, built.table))

    def connect(self) -> None:
        """Register our functions at the kernel's tracepoints."""
        if self._calls is not None and self._calls.announced:
            with self._access.calls() as point:
                self._calls.connect(point)

    # -- while probes are live ---------------------------------------------------------------------------------------

    def send_heartbeat(self) -> None:
        """Send the guest's watchdog a heartbeat, if it is due."""
        if self.heartbeat is not None:
            self.heartbeat.send()

    def silence(self) -> None:
        """Make clauses do nothing from now on."""
        if self.program_data is not None:
            self.program_data.silence()

    # -- freeing and unregistering -----------------------------------------------------------------------------------

    def release(self, *, bypassed: bool, keep: str = "") -> list[str]:
        """Free and unregister everything, and keep a copy of the program's data.

        See :func:`probekit.enabling.release.release_holdings`. ``bypassed``, ``keep``: as in
        :class:`probekit.enabling.release.Holdings`. Returns a message if memory stays allocated.
        """
        access = self._access
        self.heartbeat = None  # the watchdog's timer is stopped next
        problems = release_holdings(
            Holdings(
                target=access.target,
                text=access.text,
                facts=access.facts,
                log=access.log,
                clock=access.clock,
                safe_point=lambda: access.safe_point(ending=True),
                memory=self.memory,
                registrations=self._registrations,
                limit=self._quiet,
                bypassed=bypassed,
                keep=keep,
                silence=self.silence,
                alive=access.alive,
                check_idle=self._check_clauses,
                copy=self._freeze,
            )
        )
        self.memory = []  # memory that stays allocated is in the journal
        return problems

    def _check_clauses(self) -> None:
        """Raise :class:`GuestError` when a clause has not ended, by the guard word of its CPU."""
        inside = self.program_data.cpus_in_clauses() if self.program_data is not None else []
        if inside:
            raise GuestError(f"a clause has not ended on CPU {inside[0]}")

    def _freeze(self) -> None:
        if self.program_data is not None:
            self.program_data.freeze()
