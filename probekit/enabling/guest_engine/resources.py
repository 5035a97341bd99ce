"""What one enabling holds in the guest, and how it lets go of it: its memory, and all that the kernel was told of.

acquire                      memory, modules held, the watchdog
announce_traps, take_traps   our trap handler on the kernel's lists
announce_calls, connect      our functions at its tracepoints
...
release                      wait until nobody can come back to us, then give back everything
leave_behind                 what cannot be given back safely stays: silent, and in the journal
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from probekit.consumer.events import ProbeIdentity
from probekit.enabling.api import MemoryFactory
from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.guest_engine.callbacks import Callbacks
from probekit.enabling.guest_engine.data_memory import ProgramData
from probekit.enabling.guest_engine.heartbeat import Heartbeat
from probekit.enabling.guest_engine.plan import GuestPlan
from probekit.enabling.guest_engine.registrations import KEPT_BY_READERS, Registered
from probekit.enabling.guest_engine.stubs import BuiltCode
from probekit.enabling.guest_engine.traps import check_registered
from probekit.errors import GuestError, InternalError
from probekit.guest.health import check_status
from probekit.guest.linux import Allocation, MemoryKind
from probekit.guest.residents import vacated
from probekit.guest.safepoint import SafePoint
from probekit.guest.tracepoints import BatchRoutine
from probekit.guest.traphooks import HookKind
from probekit.guest.watchdog import Watchdog
from probekit.kernel.tasks import Task
from probekit.patch.crossmodify import wait_for_handler_exit
from probekit.patch.hooks import Hook
from probekit.patch.journal import Registration
from probekit.patch.table import HEADER_SIZE, NO_HEADER

__all__ = (
    "EngineMemory",
    "GuestResources",
)


class EngineMemory(NamedTuple):
    """Our memory: a word of each CPU, data, executable memory; ``traps``: what the kernel's lists lead to, if any."""

    slot: Allocation
    data: Allocation
    traps: Allocation | None
    code: Allocation


class GuestResources:
    """``memory``: all that is allocated. ``blocks``: data memory as it is read, a copy of it once that is given back.

    ``heartbeat``: None on a kernel whose timers are not known: its probes then go on for as long as nobody recovers it.
    """

    def __init__(self, access: GuestAccess, plan: GuestPlan, make_memory: MemoryFactory, *, quiet: float) -> None:
        self._access = access
        self._plan = plan
        self._make_memory = make_memory
        self._quiet = quiet
        self.memory: list[Allocation] = []
        self.program_data: ProgramData | None = None
        self.heartbeat: Heartbeat | None = None
        self._registered = Registered(access.facts, access.text, access.log)
        self._traps: list[Registration] = []
        self._calls: Callbacks | None = None

    @property
    def code(self) -> Allocation | None:
        """Executable memory, while there is any."""
        return next((memory for memory in self.memory if memory.kind == "exec"), None)

    # -- taking ------------------------------------------------------------------------------------------------------

    def acquire(self, *, data: int, code: int) -> EngineMemory:
        """All memory, the modules and the watchdog, at one safe point. ``data``, ``code``: bytes."""
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
        """Those that own what calls us, or that we change the text of."""
        facts, sites = self._access.facts, self._plan.sites
        owners = {s.site.owner for s in sites if isinstance(s.site, Hook)}
        changed = {s.probe.function.module for s in sites if s.probe.function is not None}
        owners |= {facts.modules[name] for name in changed & facts.modules.keys()}
        if owners:
            owned = sorted(owners - {0})
            self._calls = Callbacks(facts.tracepoints, facts.holds, owned, self._access.text, self._registered)
            self._calls.hold(point)

    def _start_heartbeat(self, point: SafePoint, data: Allocation, code: Allocation, program_data: ProgramData) -> None:
        services = self._access.facts.watchdog
        if services is not None:
            dog = Watchdog(words=data.addr + self._plan.data.size, function=code.addr + HEADER_SIZE)
            self.heartbeat = Heartbeat(
                services, dog, activity=data.addr, memory=program_data.memory, registered=self._registered
            )
            self.heartbeat.start(point, self._access.text)

    def announce_traps(self, hooks: Sequence[tuple[HookKind, int]]) -> None:
        """The journal hears of what the kernel's lists of trap handlers will lead to."""
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
                services.hooks.add(point, hook.kind, addr)
                if hook.kind == "die_notifier" and facts is not None:
                    check_registered(self._access.text, facts, addr)

    def announce_calls(self, built: BuiltCode) -> None:
        """The journal hears of the tracepoints."""
        if self._calls is not None:
            self._calls.announce(built.tracepoint_probes, BatchRoutine(built.caller, built.table))

    def connect(self) -> None:
        """Have the kernel call our functions at its tracepoints."""
        if self._calls is not None and self._calls.announced:
            with self._access.calls() as point:
                self._calls.connect(point)

    # -- meanwhile ---------------------------------------------------------------------------------------------------

    def send_heartbeat(self) -> None:
        """A sign of life for the guest's watchdog."""
        if self.heartbeat is not None:
            self.heartbeat.send()

    def silence(self) -> None:
        """From now on clauses do nothing."""
        if self.program_data is not None:
            self.program_data.silence()

    # -- giving back -------------------------------------------------------------------------------------------------

    def release(self, *, bypassed: bool) -> list[str]:
        """Wait for readers, keep what is to be read, free. What went wrong, in words: memory stays then.

        ``bypassed``: a CPU may be in our trap handler still.
        """
        access = self._access
        self.heartbeat = None  # nobody is told any more that we are there
        try:
            if bypassed:
                wait_for_handler_exit(access.target, access.clock.paused)
            with vacated(
                lambda: access.safe_point(ending=True),
                access.target,
                access.facts.services,
                self._inside,
                prepare=self._registered.stop_calls,
                wait=self._wait_for_readers if access.facts.grace is not None else None,
                settled=self._settled,
                limit=self._quiet,
            ) as point:
                self._check_left()
                self._freeze()
                self._wipe_table()
                self._registered.let_go(point)
                self._free(point)
            access.target.resume()
        except GuestError as error:
            return self.leave_behind(error.message)
        return []

    def leave_behind(self, reason: str) -> list[str]:
        """Free nothing: it is silent, and the journal keeps it for a recovery."""
        self.silence()  # whatever still leads here
        self._freeze()
        if not self._access.target.running:
            with suppress(GuestError):  # a dead guest stays as it is
                check_status(self._access.target)
                self._access.target.resume()
        size = sum(memory.size for memory in self.memory)
        self.memory = []
        return [f"{size} bytes of guest memory are left behind, inert: {reason}"]

    def _wait_for_readers(self, point: SafePoint) -> Callable[[], None]:
        """Ask the kernel to tell when those who may be in our code are gone; the rest of it is to wait for that."""
        access, facts = self._access, self._access.facts
        if facts.grace is None:
            raise InternalError("a wait for readers was asked for in a kernel that has none")
        traced = self._registered.traced
        waiting = facts.grace.begin(point, facts.services, access.text, self._take, traced=traced)
        return lambda: waiting.wait(access.text, access.clock, self._quiet, facts.residents.tasks)

    def _settled(self, _point: SafePoint) -> bool:
        """Whether nobody can be in our code, or hold on to what is in it: then there are no readers to wait for.

        Traps and markers have a notifier, which is on a list of the kernel's. A kernel that preempts itself may keep a
        thread in our code that has ended and is on no list of tasks any more.
        """
        access = self._access
        held = self._registered.traced or self._registered.of_kind(*KEPT_BY_READERS)
        if held or access.facts.preemptible:
            return False
        bounds = [(item.addr, item.addr + item.size) for item in self.memory if item.kind == "exec"]
        return access.facts.residents.nobody(access.target, access.text, bounds)

    def _inside(self, point: SafePoint) -> list[Task]:
        """Who will come back to our code; only a copied instruction that touches user memory can be slept in."""
        code, traps, access = self.code, self._plan.traps, self._access
        if code is None or traps is None or not traps.faulting:
            return []
        bounds = (code.addr, code.addr + code.size)
        return access.facts.residents.inside(
            point, access.facts.services, access.target, access.text, bounds, access.log
        )

    def _check_left(self) -> None:
        """Nobody came back to our code after the wait for readers; a vCPU in it now is an idle one, for an instant."""
        code, target = self.code, self._access.target
        if code is None:
            return
        for vcpu in target.vcpus():
            rip = target.regs(vcpu)["rip"]
            if code.addr <= rip < code.addr + code.size:
                raise GuestError(f"vCPU {vcpu} is still inside probekit's code at {rip:#x}")
        inside = self.program_data.cpus_in_clauses() if self.program_data is not None else []
        if inside:
            raise GuestError(f"a clause has not ended on CPU {inside[0]}")

    def _freeze(self) -> None:
        if self.program_data is not None:
            self.program_data.freeze()

    def _wipe_table(self) -> None:
        """Nobody may take what becomes of our memory for a table of ours."""
        self._access.log.table(stands=False)
        self._access.text.write_many([(m.addr, NO_HEADER) for m in self.memory if m.kind == "exec"])

    def _free(self, point: SafePoint) -> None:
        for memory in reversed(self.memory):
            self._access.facts.services.free(point, memory)
            self._access.log.freed(memory)  # killed in between: the log has the call, and that it returned
        self.memory = []
