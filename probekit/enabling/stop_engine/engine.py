"""Stop the guest at each firing, evaluate the clauses on the host, and let it go on in a copied instruction.

    site      breakpoint through the stub; guest text is not changed
    firing    evaluate for every vCPU that is at a site, then set its RIP to the site's slot (see ``step_slots``)
    in place  single-step an instruction whose faults the kernel looks up by address (see ``step_in_place``)
    watched   memory of ``mem`` probes: a vCPU stops after each access (see ``watch``)

The stop engine is slow (about a millisecond for a firing) but simple, so the tests
compare the guest engine with it. The slots are the only guest memory that it needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from probekit.buffers.layout import RawRecord
from probekit.enabling.api import Drained, EngineLog, EngineOptions, Rows, Salvaged
from probekit.enabling.firing_order import by_address
from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.host.firing import Firing, HostGlobals, fire
from probekit.enabling.host.vcpu import VcpuWorld
from probekit.enabling.sites import EnabledSite
from probekit.enabling.speculation import Speculations
from probekit.enabling.stop_engine.step_in_place import InPlaceStepper
from probekit.enabling.stop_engine.step_slots import StepSlots
from probekit.enabling.stop_engine.watch import Watcher
from probekit.enabling.stop_engine.worlds import StoppedWorlds
from probekit.errors import GuestError, GuestGone, MachineRan, UnsupportedError
from probekit.guest.facts import GuestFacts
from probekit.guest.health import check_status, resume_unless_dead
from probekit.guest.memory import PauseClock
from probekit.guest.safe_loads import SafeLoads
from probekit.guest.stacks import GuestStacks
from probekit.interp.aggs import Aggregations
from probekit.interp.state import ProgramState
from probekit.ir.ops import Program
from probekit.isa.decode import decode_one
from probekit.patch.edits import TextMemory
from probekit.patch.sites import InsnSite
from probekit.providers.api import Probe
from probekit.target.api import Regs, StopReason, Target, Vcpu

__all__ = ("MAX_STOP_SITES", "StopEngine")

MAX_STOP_SITES = 1000
"""The stub searches all breakpoints often, so the guest hardly runs when there are more than these."""


class StopEngine:
    """Evaluates clauses on the host: a :class:`probekit.enabling.api.Engine`."""

    def __init__(
        self,
        *,
        target: Target,
        text: TextMemory,
        facts: GuestFacts,
        program: Program,
        sites: Sequence[EnabledSite],
        options: EngineOptions,
        log: EngineLog,
        clock: PauseClock,
        safe_loads: SafeLoads | None = None,
        stacks: GuestStacks | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        alive: Callable[[bool], None] = lambda _: None,
        watcher: Watcher | None = None,
        fixups: Mapping[int, int] | None = None,
    ) -> None:
        """Prepare, but change nothing in the guest yet.

        ``safe_loads``: kernel memory that clauses may read. ``stacks``: finds callers for ``stack()``.
        ``cancelled``: whether the user wants to stop; called while waiting for a safe point.
        ``alive``: as in :class:`probekit.enabling.guest_access.GuestAccess`.
        ``watcher``: the ``mem`` probes of the program, not armed yet.
        ``fixups``: the kernel's exception table: fix-up addresses by the address of the fault.
        """
        self._target = target
        self._program = program
        self._sites: dict[int, list[EnabledSite]] = by_address(sites)
        self._access = GuestAccess(target, text, facts, log, clock, options.safepoint_s, cancelled, alive)
        self._slots = StepSlots(self._access, options.quiet_s)
        self._worlds = StoppedWorlds(text, facts, stacks)
        self._aggregations = Aggregations(program.aggregations)
        self._state = ProgramState(program)
        self._safe_loads = safe_loads
        self._silent = False
        self._watcher = watcher
        self._in_place = self._make_stepper(fixups or {})
        self._live = False
        self._records: list[tuple[int, RawRecord]] = []
        self.globals_ = HostGlobals()
        self.code = None
        self.stats: dict[str, float | int] = {}

    @property
    def guest_bytes(self) -> int:
        """How many bytes of guest memory the slots take."""
        return self._slots.size

    def enable(self, initial: Mapping[int, int], state: ProgramState, speculations: Speculations) -> None:
        """Allocate and write the slots, then set every breakpoint and watchpoint. Clauses use the host's own state.

        On any error everything is undone before the error is raised.
        """
        self._state = state
        self.globals_.values.update(initial)
        if len(self._sites) > MAX_STOP_SITES:
            raise UnsupportedError(
                f"{len(self._sites)} sites are too many for breakpoints (the limit is {MAX_STOP_SITES})",
                feature="stop engine",
                hint="probe fewer functions" + ("" if self._watcher is not None else ", or use --engine guest"),
            )
        try:
            self._make_slots()
            if self._target.running:
                self._target.stop()
            self._live = True
            self._access.clock.on_stop = self._serve_pause
            for addr in self._sites:
                self._target.set_breakpoint(addr)
            if self._watcher is not None:
                self._watcher.arm()
            self._target.resume()
        except BaseException as error:
            for problem in self.disable():
                error.add_note(f"not everything could be undone: {problem}")
            if not self._target.running:
                self._target.resume()
            raise

    def _make_stepper(self, fixups: Mapping[int, int]) -> InPlaceStepper:
        insns = {
            addr: decode_one(site.old, addr).raw
            for addr, sites in self._sites.items()
            if isinstance(site := sites[0].site, InsnSite) and addr in fixups
        }
        return InPlaceStepper(self._target, insns, fixups, self._sites)

    def _make_slots(self) -> None:
        # One address may be an instruction's site and a function's entry or exit: the latter is simpler to step over.
        sites = [
            min(sites, key=lambda site: isinstance(site.site, InsnSite))
            for addr, sites in self._sites.items()
            if not self._in_place.serves(addr)
        ]
        if sites:
            self._slots.make(sites)

    def poll(self, timeout: float) -> Drained:
        """Serve stops for ``timeout`` seconds. Returns the records in order.

        Raises :class:`GuestError` when the guest has ended or died.
        """
        deadline = time.monotonic() + timeout
        while self._live and (left := deadline - time.monotonic()) > 0:
            stop = self._target.wait(left)
            if stop is None:
                break
            if stop.kind == "exited":
                raise GuestGone("the guest ended while it was traced")
            if not self._serve(stop):  # not at a probe: somebody else stopped the guest
                check_status(self._target)
            self._target.resume()
        records, self._records = tuple(self._records), []
        watcher = self._watcher
        return Drained(
            records,
            {},
            {},
            {},
            unseen=watcher.unseen if watcher is not None else 0,
            undecoded=watcher.undecoded if watcher is not None else 0,
            lost_steps=self._in_place.lost_steps + (watcher.lost_steps if watcher is not None else 0),
        )

    def aggregations(self) -> dict[int, Rows]:
        """Return the host's own tables, by aggregation number."""
        return {plan.index: list(self._aggregations.table(plan.index).items()) for plan in self._program.aggregations}

    def send_heartbeat(self) -> None:
        """Do nothing: no watchdog in the guest waits for a heartbeat."""

    def costs(self) -> None:
        """Return None: clauses are not measured, because the guest is stopped while they run."""

    def silence(self) -> None:
        """Evaluate no clause from now on; stops are still served."""
        self._silent = True

    def keep_copy(self) -> None:
        """Do nothing: everything that was counted is on the host."""

    def salvage(self, *, intact: bool) -> Salvaged:
        """Return the last records. All data is on the host."""
        self._live = False
        self._access.clock.on_stop = _ignore
        return Salvaged(self.poll(0), 0.0)

    def is_in_place(self) -> bool:
        """See :meth:`probekit.enabling.api.Engine.is_in_place`."""
        return self._slots.is_in_place()

    def disable(self) -> list[str]:
        """Clear breakpoints and watchpoints, and free the slots once no task can be in one; safe to call twice.

        Returns a message for each failure.
        """
        problems: list[str] = []
        if self._live:
            self._live = False
            problems += self._clear()
        keep = "a vCPU may still stop at a probe and be sent there" if problems else ""
        return problems + self._slots.release(keep=keep)

    def _clear(self) -> list[str]:
        """Serve the last firings, and clear everything that stops the guest. Lets the guest run."""
        try:
            if self._target.running:
                self._serve(self._target.stop())
            for addr in self._sites:
                self._target.clear_breakpoint(addr)
            self._in_place.clear()
            if self._watcher is not None:
                self._watcher.disarm()
        except GuestError as error:
            return [error.message]
        finally:
            self._access.clock.on_stop = _ignore
            resume_unless_dead(self._target)
        return []

    def _serve_pause(self, stop: StopReason) -> None:
        self._serve(stop)

    def _serve(self, stop: StopReason) -> bool:
        """Fire for every vCPU that is at a probe: one of them stopped the guest, others may have come to one as well.

        Returns False when no vCPU is at a probe.
        """
        if self._safe_loads is not None:
            self._safe_loads.invalidate()
        hits = self._watcher.hits(stop) if self._watcher is not None else []
        for hit in hits:
            self._fire(hit.vcpu, hit.site.probe, hit.site.clauses, hit.site.number, self._worlds.of_hit(hit))
        served = bool(hits) or stop.kind == "watch"
        for vcpu in self._target.vcpus() if self._sites else ():
            regs = self._target.regs(vcpu)
            served = self._in_place.at_fixup(vcpu, regs) or served
            sites = self._sites.get(regs["rip"])
            if sites is None or regs.in_user_mode:
                continue
            served = True
            for site in sites if not self._in_place.continues(regs) else ():
                if site.call is not None and site.call != self._worlds.system_call(regs):
                    continue
                self._fire(vcpu, site.probe, site.clauses, site.number, self._worlds.at_site(site, regs))
            try:
                self._move_on(vcpu, regs)
            except MachineRan:
                # Somebody let the guest run, and the breakpoint has kept this vCPU where it was.
                now = self._target.regs(vcpu)
                if now["rip"] == regs["rip"]:
                    self._move_on(vcpu, now)
        return served

    def _fire(self, vcpu: Vcpu, probe: Probe, numbers: Sequence[int], site: int, world: VcpuWorld) -> None:
        if self._silent:
            return
        self._state.thread = world.thread()
        firing = Firing(probe, self._program, world, self.globals_, self._aggregations, state=self._state)
        clauses = [self._program.clauses[number] for number in numbers]
        records = fire(clauses, self._program, firing, site, time.monotonic_ns())
        self._records += [(vcpu - 1, record) for record in records]
        self._state.thread = 0

    def _move_on(self, vcpu: Vcpu, regs: Regs) -> None:
        if self._in_place.serves(regs["rip"]):
            self._in_place.advance(vcpu, regs)
        else:
            self._target.set_regs(vcpu, regs.replace(rip=self._slots.addr(regs["rip"])))


def _ignore(_: StopReason) -> None:
    """Do nothing: no probe is live."""
