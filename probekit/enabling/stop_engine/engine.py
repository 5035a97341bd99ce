"""The stop engine: a firing stops the guest, the host evaluates the clauses, the guest goes on in a copied instruction.

    site      breakpoint through the stub; guest text is not changed
    firing    every vCPU that stands at a site: evaluate, then RIP = its slot
    slot      the site's own instruction, nop, nop, jump back behind it (:mod:`probekit.patch.stepslot`)
    in place  an instruction whose fault the kernel finds by its address is stepped (see ``step_in_place``)
    watched   memory of ``mem`` probes: a vCPU stops after each access (see ``watch``)

Slow (about a millisecond a firing), but it is plain: what the guest engine is
compared with. Its slots are the only memory that it needs of the guest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from probekit.buffers.layout import RawRecord
from probekit.enabling.api import Drained, EngineLog, EngineOptions, Rows
from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.host.firing import Firing, HostGlobals, fire
from probekit.enabling.host.vcpu import VcpuWorld, kernel_gs_base
from probekit.enabling.sites import EnabledSite
from probekit.enabling.speculation import Speculations
from probekit.enabling.stop_engine.step_in_place import InPlaceStepper
from probekit.enabling.stop_engine.watch import Watcher, WatchHit
from probekit.errors import GuestError, InternalError, ProbekitError, UnsupportedError
from probekit.guest.facts import GuestFacts
from probekit.guest.health import check_status
from probekit.guest.linux import Allocation
from probekit.guest.memory import PauseClock
from probekit.guest.stacks import GuestStacks
from probekit.interp.aggs import Aggregations
from probekit.interp.state import State
from probekit.ir.ops import Program
from probekit.isa.decode import decode_one
from probekit.kernel.syscalls import CALL_NUMBER, SYSCALL_ARGS
from probekit.patch.edits import TextMemory
from probekit.patch.hooks import Called
from probekit.patch.sites import InsnSite
from probekit.patch.stepslot import STEP_SLOT_SIZE, step_slot
from probekit.providers.api import Probe
from probekit.target.api import Regs, StopReason, Target, Vcpu

if TYPE_CHECKING:
    from probekit.enabling.api import MemoryFactory
    from probekit.guest.peek import KernelPeek

__all__ = ("MAX_STOP_SITES", "StopEngine")

MAX_STOP_SITES = 1000
"""The stub looks through all breakpoints again and again: beyond this the guest crawls."""


class StopEngine:
    """See :class:`probekit.enabling.api.Engine`. ``watcher``: the ``mem`` probes of the program, not armed yet.

    ``fixups``: the kernel's exception table, where a fault at each address goes on.
    """

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
        make_memory: MemoryFactory,
        peek: KernelPeek | None = None,
        stacks: GuestStacks | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        watcher: Watcher | None = None,
        fixups: Mapping[int, int] | None = None,
    ) -> None:
        self._target = target
        self._text = text
        self._facts = facts
        self._program = program
        self._sites: dict[int, list[EnabledSite]] = {}
        for site in sites:
            self._sites.setdefault(site.site.addr, []).append(site)
        self._access = GuestAccess(target, text, facts, log, clock, options.safepoint_s, cancelled)
        self._slots: dict[int, int] = {}
        self._memory: Allocation | None = None
        self._aggregations = Aggregations(program.aggregations)
        self._state = State(program)
        self._peek = peek
        self._stacks = stacks
        self._silent = False
        self._watcher = watcher
        self._in_place = self._stepped(fixups or {})
        self._live = False
        self._records: list[tuple[int, RawRecord]] = []
        self.globals_ = HostGlobals()
        self.guest_bytes = 0
        self.code = None
        self.stats: dict[str, float | int] = {}

    def enable(self, initial: Mapping[int, int], state: State, speculations: Speculations) -> None:
        """Allocate and write the slots, then set every breakpoint and watchpoint. Clauses use the host's own state."""
        self._state = state
        self.globals_.values.update(initial)
        if len(self._sites) > MAX_STOP_SITES:
            raise UnsupportedError(
                f"{len(self._sites)} sites are too many for breakpoints (the limit is {MAX_STOP_SITES})",
                feature="stop engine",
                hint="probe fewer functions" + ("" if self._watcher is not None else ", or use --engine guest"),
            )
        try:
            if any(not self._in_place.serves(addr) for addr in self._sites):
                self._make_slots()
            if self._target.running:
                self._target.stop()
            self._live = True
            self._access.clock.on_stop = self._take
            for addr in self._sites:
                self._target.set_breakpoint(addr)
            if self._watcher is not None:
                self._watcher.arm()
            self._target.resume()
        except BaseException:
            self.disable()
            if not self._target.running:
                self._target.resume()
            raise

    def _stepped(self, fixups: Mapping[int, int]) -> InPlaceStepper:
        insns = {
            addr: decode_one(place.old, addr).raw
            for addr, sites in self._sites.items()
            if isinstance(place := sites[0].site, InsnSite) and addr in fixups
        }
        return InPlaceStepper(self._target, insns, fixups, self._sites)

    def _make_slots(self) -> None:
        # One place may be an instruction's and a function's entry or exit: stepping over the latter is simpler.
        sites = [
            min(sites, key=lambda site: isinstance(site.site, InsnSite))
            for addr, sites in self._sites.items()
            if not self._in_place.serves(addr)
        ]
        with self._access.safe_point() as point:
            memory = self._facts.services.allocate(point, "exec", STEP_SLOT_SIZE * len(sites))
            self._memory = memory
            self._access.log.allocated(memory)
            self._facts.services.make_executable(point, memory)
        self.guest_bytes = memory.size
        slots: list[tuple[int, bytes]] = []
        for number, site in enumerate(sites):
            if isinstance(site.site, Called):
                raise InternalError("a site that is no text is refused before")
            addr = memory.addr + number * STEP_SLOT_SIZE
            self._slots[site.site.addr] = addr
            slots.append((addr, step_slot(site.site, addr)))
        self._text.write_many(slots)

    def poll(self, timeout: float) -> Drained:
        """Serve stops until ``timeout``; records come back in order."""
        deadline = time.monotonic() + timeout
        while self._live and (left := deadline - time.monotonic()) > 0:
            stop = self._target.wait(left)
            if stop is None:
                break
            if stop.kind == "exited":
                raise GuestError("the guest ended while it was traced")
            if not self._serve(stop):  # nothing of ours: somebody else stopped it
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
        """The host's own tables."""
        return {plan.index: list(self._aggregations.table(plan.index).items()) for plan in self._program.aggregations}

    def send_heartbeat(self) -> None:
        """Do nothing: no watchdog in the guest waits for a heartbeat."""

    def costs(self) -> None:
        """Return nothing: the guest's time stands still while clauses run."""

    def silence(self) -> None:
        """Stops go on being served, but no clause is evaluated."""
        self._silent = True

    def disable(self) -> list[str]:
        """Clear breakpoints and watchpoints; free the slots once nobody can be in one."""
        problems: list[str] = []
        if self._live:
            self._live = False
            problems += self._clear()
        memory, self._memory = self._memory, None
        if memory is None:
            return problems
        try:
            with self._access.safe_point(ending=True) as point:
                self._facts.services.synchronize(point)
                self._facts.services.free(point, memory)
                self._access.log.freed(memory)
        except ProbekitError as error:
            return [*problems, f"{memory.size} bytes of guest memory are left behind, inert: {error.message}"]
        finally:
            self._let_run()
        return problems

    def _clear(self) -> list[str]:
        """The last firings, and then none any more; the guest runs behind."""
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
            self._access.clock.on_stop = _nobody
            self._let_run()
        return []

    def _let_run(self) -> None:
        if not self._target.running:
            with suppress(GuestError):  # a dead guest stays as it is
                check_status(self._target)
                self._target.resume()

    def _take(self, stop: StopReason) -> None:
        self._serve(stop)

    def _serve(self, stop: StopReason) -> bool:
        """Fire for every vCPU: one of them stopped the guest, others may have come to a probe as well.

        False: nobody had.
        """
        if self._peek is not None:
            self._peek.invalidate()
        hits = self._watcher.hits(stop) if self._watcher is not None else []
        for hit in hits:
            self._fire(hit.vcpu, hit.site.probe, hit.site.clauses, hit.site.number, self._world_of(hit))
        served = bool(hits) or stop.kind == "watch"
        for vcpu in self._target.vcpus() if self._sites else ():
            regs = self._target.regs(vcpu)
            served = self._in_place.at_fixup(vcpu, regs) or served
            sites = self._sites.get(regs["rip"])
            if sites is None or regs.in_user_mode:
                continue
            served = True
            for site in sites if not self._in_place.continues(regs) else ():
                if site.call is not None and site.call != self._system_call(regs):
                    continue
                self._fire(vcpu, site.probe, site.clauses, site.number, self._world_at(site, regs))
            self._move_on(vcpu, regs)
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

    def _system_call(self, regs: Regs) -> int | None:
        """The system call whose function returns here; None when another function of the kernel called it."""
        entry = self._facts.kernel.syscalls
        caller = self._word(regs["rsp"])
        if entry.stack_top is None or not any(start <= caller < end for start, end in entry.callers):
            return None
        return self._word(self._word(kernel_gs_base(regs) + entry.stack_top) + CALL_NUMBER) & 0xFFFFFFFF

    def _word(self, addr: int) -> int:
        (data,) = self._text.read_many([(addr & (1 << 64) - 1, 8)])
        return int.from_bytes(data or b"", "little")

    def _world_at(self, site: EnabledSite, regs: Regs) -> VcpuWorld:
        """argN at an entry; offset and returned value at a return, the latter twice at a system call's."""
        match site.probe.kind:
            case "return":
                args = [site.offset, regs["rax"]]
            case "sysret":
                args = [regs["rax"], regs["rax"]]
            case "syscall":
                saved = regs["rdi"]
                (data,) = self._text.read_many([(saved, max(SYSCALL_ARGS) + 8)])
                args = [int.from_bytes((data or b"")[at : at + 8], "little") for at in SYSCALL_ARGS]
            case _:
                return VcpuWorld(regs, self._text, self._facts, stacks=self._stacks)
        returned = 0 if site.probe.kind == "syscall" else regs["rax"]
        argument = _among(args)
        return VcpuWorld(regs, self._text, self._facts, argument, returned, self._stacks)

    def _world_of(self, hit: WatchHit) -> VcpuWorld:
        return VcpuWorld(hit.regs, self._text, self._facts, _among(hit.args), stacks=self._stacks, inside=True)

    def _move_on(self, vcpu: Vcpu, regs: Regs) -> None:
        if self._in_place.serves(regs["rip"]):
            self._in_place.advance(vcpu, regs)
        else:
            self._target.set_regs(vcpu, regs.replace(rip=self._slots[regs["rip"]]))


def _among(args: Sequence[int]) -> Callable[[int], int]:
    """argN of these; 0 where there are no more."""
    return lambda index: args[index] if index < len(args) else 0


def _nobody(_: StopReason) -> None:
    """No probe is live."""
