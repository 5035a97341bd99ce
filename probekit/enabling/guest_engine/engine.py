"""Run the program's clauses as code inside the guest: the order of all steps of the guest engine.

    enable   allocate at a safe point -> build and verify the code -> write data and code -> journal -> check that it
             is mapped everywhere -> register with the kernel -> compare the old bytes, patch
    poll     read each CPU's ring and counters, without a stop where the guest's RAM is a shared file
    disable  restore all sites -> safe point: wait for readers, copy the last records, free

Every change is written to the journal before it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from probekit.codegen.verify import verify_code
from probekit.enabling.api import ClauseCosts, Drained, EngineLog, EngineOptions, MemoryFactory, Rows, Salvaged
from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.guest_engine.costs import CostMeter, LeadTimes, inline_clauses
from probekit.enabling.guest_engine.data_memory import ProgramData
from probekit.enabling.guest_engine.drain import Drain
from probekit.enabling.guest_engine.install import write_code, write_data, write_table, write_trap_data
from probekit.enabling.guest_engine.live_markers import load_bypasses
from probekit.enabling.guest_engine.mapping_check import PageTables, check_mapped, memory_touched
from probekit.enabling.guest_engine.patches import Patches
from probekit.enabling.guest_engine.plan import CODE_AT, plan_guest
from probekit.enabling.guest_engine.resources import EngineMemory, GuestResources
from probekit.enabling.guest_engine.staged_edits import jump_targets
from probekit.enabling.guest_engine.stubs import BuiltCode, StubPlan, build_code, plan_stubs
from probekit.enabling.sites import EnabledSite
from probekit.enabling.speculation import Speculations
from probekit.errors import GuestError, InternalError
from probekit.guest.facts import GuestFacts
from probekit.guest.memory import PauseClock
from probekit.interp.state import ProgramState
from probekit.ir.ops import Program
from probekit.patch.edits import TextMemory
from probekit.target.api import Target

__all__ = ("GuestEngine",)


class GuestEngine:
    """Runs clauses in the guest: a :class:`probekit.enabling.api.Engine`."""

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
        page_tables: PageTables,
        edits_size: int,
        cancelled: Callable[[], bool] = lambda: False,
        alive: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Plan the enabling, but change nothing in the guest yet.

        ``edits_size``: bytes of the journal's records of all edits (:func:`probekit.enabling.sites.journal_size`).
        ``cancelled``: whether the user wants to stop; called while waiting for a safe point.
        ``alive``: as in :class:`probekit.enabling.guest_access.GuestAccess`.
        Raises :class:`probekit.errors.UnsupportedError` when a site needs INT3 and the guest cannot take it.
        """
        self._access = GuestAccess(target, text, facts, log, clock, options.safepoint_s, cancelled, alive)
        self._program = program
        self._sites = tuple(sites)
        self._page_tables = page_tables
        self._edits_size = edits_size
        self._plan = plan_guest(program, self._sites, facts, options)
        self._resources = GuestResources(self._access, self._plan, make_memory, quiet=options.quiet_s)
        self._patches = Patches(self._access, self._sites, options.staged, self.send_heartbeat)
        self._drain = Drain(target, options, self._resources, cancelled)
        self._header: tuple[int, bytes] | None = None
        self._meter: CostMeter | None = None
        self.code: tuple[int, bytes] | None = None
        """Address and bytes of the program's code, once it is written."""

    # -- Engine ------------------------------------------------------------------------------------------------------

    @property
    def globals_(self) -> ProgramData:
        """The program's globals in guest memory, or a copy of them after that is freed."""
        if self._resources.program_data is None:
            raise GuestError("nothing is enabled")
        return self._resources.program_data

    @property
    def guest_bytes(self) -> int:
        """How many bytes of guest memory are in use."""
        return sum(memory.size for memory in self._resources.memory)

    @property
    def stats(self) -> dict[str, float | int]:
        """How often the guest was stopped to be read, and for how long at most, in seconds."""
        pace = self._drain.pace
        return {"stops_to_read": pace.stops, "longest_stop_to_read_s": pace.longest} if pace.stops else {}

    def enable(self, initial: Mapping[int, int], state: ProgramState, speculations: Speculations) -> None:
        """Allocate, assemble, write, patch. On any error everything is undone before the error is raised."""
        try:
            self._enable(initial, state, speculations)
        except BaseException as error:
            for problem in self.disable():
                error.add_note(f"not everything could be undone: {problem}")
            if not self._access.target.running:
                self._access.target.resume()
            raise

    def _enable(self, initial: Mapping[int, int], state: ProgramState, speculations: Speculations) -> None:
        access, plan, resources, patches = self._access, self._plan, self._resources, self._patches
        # Both upper bounds are computed before the guest is stopped at a safe point.
        with access.interruptible():
            bound, room = plan.code_bound(), plan.data_bound(len(access.log.contents()) + self._edits_size)
            plan.check_room(bound + room)
        memory = resources.acquire(data=room, code=bound)
        context = plan.context(data=memory.data.addr, slot=memory.slot.addr)
        with access.interruptible():
            stubs = plan_stubs(self._program, self._sites, context)
            built = build_code(self._program, self._sites, stubs, context, memory.code.addr + CODE_AT)
            verify_code(built.image.layout, context)
        image = built.code + self._prepare_traps(built, memory)
        if CODE_AT + len(image) > memory.code.room:
            raise InternalError("the code is larger than its upper bound")
        write_data(
            access,
            plan,
            self.globals_,
            slot=memory.slot,
            data=memory.data,
            initial=initial,
            state=state,
            speculations=speculations,
        )
        write_code(access, memory.code.addr + CODE_AT, image)
        self.code = (memory.code.addr + CODE_AT, image)
        # From here on the journal names everything that will be changed, and the guest has a copy of it.
        patches.announce(built)
        resources.announce_calls(built)
        patches.announce_markers(built.markers)
        self._header = write_table(access, plan, self.globals_, code=memory.code, data=memory.data)
        with access.interruptible():
            check_mapped(memory_touched(resources.memory, access.facts.cpu_offsets.values()), self._page_tables)
        self._calibrate(built, stubs)
        resources.take_traps()
        if resources.heartbeat is not None:
            resources.heartbeat.restart()
        # Sites go live from here on.
        resources.connect()
        patches.apply_while_running()
        patches.apply_paused()

    def _prepare_traps(self, built: BuiltCode, memory: EngineMemory) -> bytes:
        """Return the code for INT3 sites, to be put after ``built``, and write the structures that the kernel links."""
        traps = self._plan.traps
        if traps is None or memory.traps is None:
            return b""
        filler = b"\xcc" * (-len(built.code) % 16)  # int3
        trapping = traps.build(
            built.stubs | load_bypasses(built.markers) | jump_targets(self._patches.in_stages(built)),
            built.copies,
            addr=memory.code.addr + CODE_AT + len(built.code) + len(filler),
            code=(memory.code.addr, memory.code.addr + memory.code.size),
            data=memory.traps.addr,
        )
        write_trap_data(self._access, memory.traps.addr, trapping.block)
        self._resources.announce_traps(trapping.hooks)
        return filler + trapping.code

    def _calibrate(self, built: BuiltCode, stubs: StubPlan) -> None:
        """Measure the time of a firing without clauses, before any site is live."""
        words, functions = self._plan.layout.costs, built.calibrations
        if words is None or functions is None:
            return
        with self._access.calls() as point:
            thunk, inline = point.call(functions.thunk), point.call(functions.inline)
        khz = self._access.facts.tsc_khz
        self._meter = CostMeter(
            words,
            inline_clauses(stubs.inline, [site.clauses for site in self._sites]),
            LeadTimes.of_ticks(thunk, inline, khz),
            khz,
        )

    def poll(self, timeout: float) -> Drained:
        """Return the records in the rings; wait up to ``timeout`` seconds while they are empty."""
        return self._drain.poll(timeout)

    def send_heartbeat(self) -> None:
        """Send the guest's watchdog a heartbeat, if one is due. Polling sends one as well."""
        self._resources.send_heartbeat()

    def aggregations(self) -> dict[int, Rows]:
        """Return all values of all CPUs as they are now, or as they were when probing ended."""
        return self._resources.program_data.aggregations() if self._resources.program_data is not None else {}

    def costs(self) -> ClauseCosts | None:
        """Return the CPU time of the clauses so far; None when it is not measured."""
        return self._meter.read(self.globals_) if self._meter is not None else None

    def silence(self) -> None:
        """Make all clauses do nothing from now on; sites stay as they are."""
        self._resources.silence()

    def keep_copy(self) -> None:
        """See :meth:`probekit.enabling.api.Engine.keep_copy`."""
        if self._resources.program_data is not None:
            self._resources.program_data.keep_copy()

    def salvage(self, *, intact: bool) -> Salvaged:
        """See :meth:`probekit.enabling.api.Engine.salvage`."""
        program_data = self._resources.program_data
        age = program_data.salvage(intact=intact) if program_data is not None else None
        if age is None:
            self._resources.program_data = None
        # A copy was made before the rings were read last: they hold records that were shown already.
        return Salvaged(self._drain.poll(0) if age == 0 else None, age)

    def is_in_place(self) -> bool:
        """See :meth:`probekit.enabling.api.Engine.is_in_place`. The recovery table is no other's: it has a checksum."""
        if self._header is None:
            return True
        addr, header = self._header
        return self._access.text.read_many([(addr, len(header))])[0] == header

    def disable(self) -> list[str]:
        """Restore all sites, wait until no task is inside our code, copy the last records, free our memory.

        Safe to call twice. Returns a message for each failure.
        """
        problems = self._patches.undo()
        if self._resources.memory:
            # A site that somebody else has changed, or that cannot be read, may still lead to our code.
            keep = "others may lead there" if problems else ""
            problems += self._resources.release(bypassed=self._patches.bypassed, keep=keep)
        return problems
