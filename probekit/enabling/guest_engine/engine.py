"""The guest engine: the program's clauses as code inside the guest.

    enable   allocate at a safe point -> assemble -> write data and code -> see it mapped -> one pause: verify, patch
    poll     read each CPU's ring and counters, by the shared RAM file without a stop where there is one
    disable  one pause: restore -> safe point: wait for readers, copy what is left to read, free

Here is the order of the steps. The journal hears of everything before it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from probekit.codegen.verify import verify_code
from probekit.enabling.api import ClauseCosts, Drained, EngineLog, EngineOptions, MemoryFactory, Rows
from probekit.enabling.guest_access import Reach
from probekit.enabling.guest_engine.costs import LeadTimes, Meter, inline_clauses
from probekit.enabling.guest_engine.data_memory import Blocks
from probekit.enabling.guest_engine.drain import Visits
from probekit.enabling.guest_engine.install import write_code, write_data, write_table, write_trap_data
from probekit.enabling.guest_engine.live_markers import bypasses
from probekit.enabling.guest_engine.mapping_check import PageTables, check_mapped, touched_by
from probekit.enabling.guest_engine.patches import Patches
from probekit.enabling.guest_engine.plan import CODE_AT, plan_guest
from probekit.enabling.guest_engine.resources import Held, Places
from probekit.enabling.guest_engine.staged_edits import stubs_of
from probekit.enabling.guest_engine.stubs import BuiltCode, StubPlan, build_code, plan_stubs
from probekit.enabling.sites import EnabledSite
from probekit.enabling.speculation import Speculations
from probekit.errors import GuestError, InternalError
from probekit.guest.facts import GuestFacts
from probekit.guest.memory import PauseClock
from probekit.interp.state import State
from probekit.ir.ops import Program
from probekit.patch.edits import TextMemory
from probekit.target.api import Target

__all__ = ("GuestEngine",)


class GuestEngine:
    """See :class:`probekit.enabling.api.Engine`.

    ``edits_size``: bytes that the journal takes to say what is changed (:func:`probekit.enabling.sites.journal_size`).
    ``code``: address and bytes of the program's code.
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
        page_tables: PageTables,
        edits_size: int,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._reach = Reach(target, text, facts, log, clock, options.safepoint_s, cancelled)
        self._program = program
        self._sites = tuple(sites)
        self._page_tables = page_tables
        self._edits_size = edits_size
        self._plan = plan_guest(program, self._sites, facts, options)
        self._held = Held(self._reach, self._plan, make_memory, quiet=options.quiet_s)
        self._patches = Patches(self._reach, self._sites, options.staged, self.beat)
        self._visits = Visits(target, options, self._held)
        self._meter: Meter | None = None
        self.code: tuple[int, bytes] | None = None

    # -- Engine ------------------------------------------------------------------------------------------------------

    @property
    def globals_(self) -> Blocks:
        """The program's globals in guest memory (a copy of them once that is freed)."""
        if self._held.blocks is None:
            raise GuestError("nothing is enabled")
        return self._held.blocks

    @property
    def guest_bytes(self) -> int:
        """Guest memory in use."""
        return sum(memory.size for memory in self._held.memory)

    @property
    def stats(self) -> dict[str, float | int]:
        """How often the guest was stopped to be read, and for how long at most, in seconds."""
        pace = self._visits.pace
        return {"stops_to_read": pace.stops, "longest_stop_to_read_s": pace.longest} if pace.stops else {}

    def enable(self, initial: Mapping[int, int], state: State, speculations: Speculations) -> None:
        """Allocate, assemble, write, patch. On any error everything is taken back before it is raised."""
        try:
            self._enable(initial, state, speculations)
        except BaseException:
            self.disable()
            if not self._reach.target.running:
                self._reach.target.resume()
            raise

    def _enable(self, initial: Mapping[int, int], state: State, speculations: Speculations) -> None:
        reach, plan, held, patches = self._reach, self._plan, self._held, self._patches
        # Both bounds are worked out before the guest stands still at a safe point.
        bound, room = plan.code_bound(), plan.data_bound(len(reach.log.contents()) + self._edits_size)
        plan.check_room(bound + room)
        places = held.acquire(data=room, code=bound)
        context = plan.context(data=places.data.addr, slot=places.slot.addr)
        stubs = plan_stubs(self._program, self._sites, context)
        built = build_code(self._program, self._sites, stubs, context, places.code.addr + CODE_AT)
        verify_code(built.image.layout, context)
        image = built.code + self._prepare_traps(built, places)
        if CODE_AT + len(image) > places.code.size:
            raise InternalError("the code is larger than its upper bound")
        write_data(
            reach,
            plan,
            self.globals_,
            slot=places.slot,
            data=places.data,
            initial=initial,
            state=state,
            speculations=speculations,
        )
        write_code(reach, places.code.addr + CODE_AT, image)
        self.code = (places.code.addr + CODE_AT, image)
        # The journal hears of everything that is about to be done, and the guest has a copy of it.
        patches.announce(built)
        held.announce_calls(built)
        patches.announce_markers(built.markers)
        write_table(reach, plan, self.globals_, code=places.code, data=places.data)
        check_mapped(touched_by(held.memory, reach.facts.cpu_offsets.values()), self._page_tables)
        self._calibrate(built, stubs)
        held.take_traps()
        if held.heart is not None:
            held.heart.wake()
        # Live from here on.
        held.connect()
        patches.make_running()
        patches.make_at_once()

    def _prepare_traps(self, built: BuiltCode, places: Places) -> bytes:
        """What comes behind ``built`` for sites of INT3; the block that the kernel's lists will lead to is written."""
        traps = self._plan.traps
        if traps is None or places.traps is None:
            return b""
        filler = b"\xcc" * (-len(built.code) % 16)  # int3
        trapping = traps.build(
            built.stubs | bypasses(built.markers) | stubs_of(self._patches.in_stages(built)),
            built.copies,
            addr=places.code.addr + CODE_AT + len(built.code) + len(filler),
            code=(places.code.addr, places.code.addr + places.code.size),
            data=places.traps.addr,
        )
        write_trap_data(self._reach, places.traps.addr, trapping.block)
        self._held.announce_traps(trapping.hooks)
        return filler + trapping.code

    def _calibrate(self, built: BuiltCode, stubs: StubPlan) -> None:
        """Take the time of what leads to clauses, before there is a site that does."""
        words, functions = self._plan.layout.costs, built.calibrations
        if words is None or functions is None:
            return
        with self._reach.calls() as point:
            thunk, inline = point.call(functions.thunk), point.call(functions.inline)
        khz = self._reach.facts.tsc_khz
        self._meter = Meter(
            words,
            inline_clauses(stubs.inline, [site.clauses for site in self._sites]),
            LeadTimes.of_ticks(thunk, inline, khz),
            khz,
        )

    def poll(self, timeout: float) -> Drained:
        """Take what is in the rings; waits in small steps while they are empty."""
        return self._visits.poll(timeout)

    def beat(self) -> None:
        """A sign of life for the guest's watchdog; polling gives one as well."""
        self._held.beat()

    def aggregations(self) -> dict[int, Rows]:
        """All values of all CPUs as they are now, or as they were when probing ended."""
        return self._held.blocks.aggregations() if self._held.blocks is not None else {}

    def costs(self) -> ClauseCosts | None:
        """What the clauses have cost so far; None when they are not measured."""
        return self._meter.read(self.globals_) if self._meter is not None else None

    def silence(self) -> None:
        """See :class:`probekit.enabling.api.Engine`."""
        self._held.silence()

    def disable(self) -> list[str]:
        """Restore, wait until nobody is inside our code, copy what is left to read, free."""
        problems, foreign = self._patches.undo()
        if self._held.memory:
            # Whoever changed a site may have kept a copy of our jump.
            problems += (
                self._held.leave_behind("others may lead there")
                if foreign
                else self._held.release(bypassed=self._patches.bypassed)
            )
        return problems
