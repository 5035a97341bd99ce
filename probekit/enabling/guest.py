"""The guest engine: the program's clauses as code inside the guest.

enable   allocate at a safe point -> assemble -> write data and code -> one pause: verify, journal, patch
poll     read each CPU's ring and counters, by the shared RAM file without a stop where there is one
disable  one pause: restore -> safe point: wait for readers -> last read -> free
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence

from probekit.buffers.layout import (
    BLOCK_MAGIC,
    HeaderWord,
    RawRecord,
    plan_block,
    read_records,
)
from probekit.codegen.context import Context
from probekit.consumer.aggregate import stored_rows
from probekit.consumer.events import Probe
from probekit.enabling.api import Drained, EngineLog, EngineOptions, Rows
from probekit.enabling.data import DataPlan, plan_data
from probekit.enabling.facts import GuestFacts
from probekit.enabling.sites import EnabledSite
from probekit.enabling.stubs import build_code, code_size, plan_stubs
from probekit.errors import ConflictError, GuestError
from probekit.guest.health import check_status
from probekit.guest.linux import Allocation
from probekit.guest.memory import DataMemory, PauseClock
from probekit.guest.safepoint import SafePoint
from probekit.ir.ops import Program
from probekit.patch.edits import Edit, TextMemory, apply_edits, revert_edits, rips_inside
from probekit.target.api import Target

__all__ = ("GuestEngine", "MemoryFactory")

MemoryFactory = Callable[[Allocation], DataMemory]
"""Makes the way to our data memory; called with the guest stopped."""

_FAR_SLOT = 1 << 40  # an offset that needs the long form of every access, for the upper bound of the code's size
_WINDOW_TRIES = 50
_CODE_CHUNK = 1 << 20


class GuestEngine:
    """See :class:`probekit.enabling.api.Engine`."""

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
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._target = target
        self._text = text
        self._facts = facts
        self._program = program
        self._sites = tuple(sites)
        self._options = options
        self._log = log
        self._clock = clock
        self._make_memory = make_memory
        self._cancelled = cancelled
        self._cpus = tuple(sorted(facts.cpu_offsets))
        self._layout = plan_block(
            program.aggregations, sites=len(self._sites), aggsize=options.aggsize, bufsize=options.bufsize
        )
        self._plan = plan_data(program, self._sites, self._layout, len(self._cpus))
        self._memory: DataMemory | None = None
        self._allocations: list[Allocation] = []
        self._edits: list[Edit] = []
        self._live = False
        self._final: Drained | None = None
        self._last: dict[int, Rows] | None = None
        self._probes = {s.index: Probe(s.probe.id, s.probe.name) for s in self._sites}
        self._corrupt = 0
        self._saved_globals: dict[int, int] = {}
        self.guest_bytes = 0

    # -- Engine -----------------------------------------------------------------------------------------------------

    @property
    def globals_(self) -> _GuestGlobals:
        """The program's globals in guest memory (a copy of them once that is freed)."""
        return _GuestGlobals(self)

    def enable(self) -> None:
        """Allocate, assemble, write, patch. On any error everything is taken back before it is raised."""
        if not self._sites:
            return
        try:
            data, code = self._allocate()
            context = self._context(data)
            stubs = plan_stubs(self._program, self._sites, context)
            image, edits, _ = build_code(self._program, self._sites, stubs, context, code.addr)
            if len(image) > code.size:
                raise AssertionError("the code is larger than its upper bound")
            self.guest_bytes = sum(memory.size for memory in self._allocations)
            self._write(data, code, image)
            self._patch(edits)
        except BaseException:
            self.disable()
            if not self._target.running:
                self._target.resume()
            raise

    def poll(self, timeout: float) -> Drained:
        """Take what is in the rings; waits in small steps while they are empty."""
        if self._final is not None:
            final, self._final = self._final, Drained((), {}, {}, {})
            return final
        deadline = time.monotonic() + timeout
        step = 0.02 if self._memory is not None and self._memory.live else min(0.25, timeout)
        while True:
            drained = self._drain()
            left = deadline - time.monotonic()
            if drained.records or left <= 0:
                return drained
            self._watch(min(step, left))

    def aggregations(self) -> dict[int, Rows]:
        """All values of all CPUs as they are now, or as they were when probing ended."""
        if self._last is not None:
            return self._last
        rows: dict[int, Rows] = {}
        if self._memory is None:
            return rows
        with self._reading() as memory:
            for index in range(len(self._cpus)):
                block = self._base() + self._plan.block(index)
                for plan, store in zip(self._program.aggregations, self._layout.stores, strict=True):
                    data = memory.read(block + store.offset, store.size)
                    found, corrupt = stored_rows(plan, store, data, self._probes)
                    rows.setdefault(store.agg, []).extend(found)
                    self._corrupt += corrupt
        return rows

    def silence(self) -> None:
        """Set the activity word; thunks look at it before anything else."""
        if self._memory is not None:
            self._memory.write(self._base(), struct.pack("<Q", 1))

    def disable(self) -> list[str]:
        """Restore, wait until nobody is inside our code, read a last time, free."""
        problems: list[str] = []
        if self._edits:
            with self._clock.paused():
                report = revert_edits(self._text, self._edits)
            problems += [f"{addr:#x} was changed by somebody else and is left alone" for addr, _ in report.conflicts]
            problems += [f"{addr:#x} is not mapped any more" for addr in report.unreadable]
            self._edits = []
            if report.clean:
                self._log.reverted()
        if self._allocations:
            problems += self._release()
        return problems

    # -- enabling ---------------------------------------------------------------------------------------------------

    def _allocate(self) -> tuple[Allocation, Allocation]:
        """Per-CPU slot, data and code memory, at one safe point. The code's size is known only as a bound yet."""
        near = next(iter(self._facts.candidates), 0)
        rough = self._context_at(data=1 << 62, slot=_FAR_SLOT)
        bound = code_size(self._program, self._sites, plan_stubs(self._program, self._sites, rough), rough, near)
        services = self._facts.services
        with SafePoint(self._target, self._facts.candidates, log=self._log, timeout=self._options.safepoint_s) as point:
            slot = self._take(services.allocate(point, "percpu", 8))
            data = self._take(services.allocate(point, "data", self._plan.size))
            code = self._take(services.allocate(point, "exec", bound))
            services.make_executable(point, code)
            self._memory = self._make_memory(data)
        self._slot = slot
        self._data = data
        self._target.resume()
        return data, code

    def _take(self, memory: Allocation) -> Allocation:
        self._allocations.append(memory)
        self._log.allocated(memory)
        return memory

    def _context(self, data: Allocation) -> Context:
        slot = self._slot.addr
        return self._context_at(data=data.addr, slot=slot - (1 << 64) if slot >> 63 else slot)

    def _context_at(self, *, data: int, slot: int) -> Context:
        return Context(
            layout=self._layout,
            aggregations=self._program.aggregations,
            globals_=tuple(v for v in self._program.variables if v.scope == "global"),
            slot=slot,
            activity=data,
            variables=data + self._plan.variables,
            sites=data + self._plan.sites,
            strings=data + self._plan.strings,
            constants=self._plan.constants,
            preemptible=self._facts.preemptible,
            task=self._facts.task,
            clock=self._facts.clock,
        )

    def _write(self, data: Allocation, code: Allocation, image: bytes) -> None:
        """Data first, then code; a CPU can reach neither yet. Both are read back."""
        with self._clock.paused():
            memory = self._need_memory()
            memory.write(data.addr, self._plan.head)
            for index, cpu in enumerate(self._cpus):
                block = data.addr + self._plan.block(index)
                memory.write(block, DataPlan.block_head())
                slot = (self._slot.addr + self._facts.cpu_offsets[cpu]) & (1 << 64) - 1
                self._text.write_many([(slot, struct.pack("<Q", block))])
        for offset in range(0, len(image), _CODE_CHUNK):
            with self._clock.paused():
                chunk = image[offset : offset + _CODE_CHUNK]
                self._text.write_many([(code.addr + offset, chunk)])
                found = self._text.read_many([(code.addr + offset, len(chunk))])[0]
                if found != chunk:
                    raise ConflictError(
                        f"code written at {code.addr + offset:#x} does not read back",
                        addr=code.addr + offset,
                        expected=chunk[:16],
                        found=(found or b"")[:16],
                    )

    def _patch(self, edits: list[Edit]) -> None:
        """All sites in one pause, at a moment when no vCPU stands inside a window. The journal has them before it."""
        self._log.edits(edits)
        for _ in range(_WINDOW_TRIES):
            with self._clock.paused():
                rips = [self._target.regs(vcpu)["rip"] for vcpu in self._target.vcpus()]
                if not rips_inside(rips, edits):
                    self._edits = edits
                    apply_edits(self._text, edits, lambda _: None)
                    self._live = True
                    return
            time.sleep(0.001)
        raise GuestError("a vCPU stayed inside the bytes to be patched", hint="try again, or probe fewer functions")

    # -- reading ----------------------------------------------------------------------------------------------------

    def _base(self) -> int:
        return self._data.addr

    def _need_memory(self) -> DataMemory:
        if self._memory is None:
            raise GuestError("nothing is enabled")
        return self._memory

    def _reading(self) -> _Reading:
        return _Reading(self._need_memory(), self._clock)

    def _drain(self) -> Drained:
        if self._memory is None:
            return Drained((), {}, {}, {})
        records: list[tuple[int, RawRecord]] = []
        principal: dict[int, int] = {}
        recursion: dict[int, int] = {}
        aggregation: dict[int, int] = {}
        corrupt, self._corrupt = self._corrupt, 0
        with self._reading() as memory:
            for index, cpu in enumerate(self._cpus):
                block = self._base() + self._plan.block(index)
                words = struct.unpack(
                    f"<{self._layout.header_words}Q", memory.read(block, 8 * self._layout.header_words)
                )
                if words[HeaderWord.MAGIC] != BLOCK_MAGIC:
                    raise GuestError(
                        "the guest's memory of probekit is gone: it rebooted or died",
                        hint="nothing is left to restore in the new kernel; attach again",
                    )
                principal[cpu] = words[HeaderWord.PRINCIPAL_DROPS]
                recursion[cpu] = words[HeaderWord.RECURSION_DROPS]
                aggregation[cpu] = sum(words[HeaderWord.AGG_DROPS :])
                found, sound = self._take_ring(memory, block, words[HeaderWord.HEAD], words[HeaderWord.TAIL])
                records += [(cpu, record) for record in found]
                corrupt += not sound
        return Drained(tuple(records), principal, recursion, aggregation, corrupt)

    def _take_ring(self, memory: DataMemory, block: int, head: int, tail: int) -> tuple[list[RawRecord], bool]:
        """Read from tail to head and move the tail; a ring that makes no sense is emptied."""
        if head == tail:
            return [], True
        size = self._layout.ring_size
        ring = block + self._layout.ring_offset
        start, length = tail % size, min(head - tail, size) if head > tail else 0
        image = bytearray(size)
        first = min(length, size - start)
        image[start : start + first] = memory.read(ring + start, first)
        if length > first:
            image[: length - first] = memory.read(ring, length - first)
        records, sound = read_records(bytes(image), head, tail)
        memory.write(block + 8 * HeaderWord.TAIL, struct.pack("<Q", head))
        return records, sound

    def _watch(self, seconds: float) -> None:
        """Let time pass, and notice when the guest stops or goes."""
        if not self._target.running:
            time.sleep(seconds)
            return
        stop = self._target.wait(seconds)
        if stop is not None:
            check_status(self._target)  # paused by somebody else: it goes on; dead: it is said
            self._target.resume()

    # -- disabling --------------------------------------------------------------------------------------------------

    def _release(self) -> list[str]:
        """Wait for readers, read the last values, free. Memory that must stay is left inert, and said so."""
        services = self._facts.services
        try:
            with SafePoint(
                self._target, self._facts.candidates, log=self._log, timeout=self._options.safepoint_s
            ) as point:
                services.synchronize(point)
                self._leave_quietly()
                self._keep_last()
                for memory in reversed(self._allocations):
                    services.free(point, memory)
                    self._log.freed(memory)
            self._allocations = []
            self._target.resume()
        except GuestError as error:
            self._keep_last()
            if not self._target.running:
                self._target.resume()
            size = sum(memory.size for memory in self._allocations)
            self._allocations = []
            return [f"{size} bytes of guest memory are left behind, inert: {error.message}"]
        return []

    def _leave_quietly(self) -> None:
        """Nobody came back to our code after the wait for readers; a vCPU in it now is an idle one, for an instant."""
        code = next((m for m in self._allocations if m.kind == "exec"), None)
        if code is None:
            return
        for vcpu in self._target.vcpus():
            rip = self._target.regs(vcpu)["rip"]
            if code.addr <= rip < code.addr + code.size:
                raise GuestError(f"vCPU {vcpu} is still inside probekit's code at {rip:#x}")

    def _keep_last(self) -> None:
        if self._memory is None or self._last is not None or not self._live:
            return
        self._final = self._drain()
        values = self.aggregations()
        count = sum(v.scope == "global" for v in self._program.variables)
        words = struct.unpack(f"<{count}Q", self._memory.read(self._base() + self._plan.variables, 8 * count))
        indexes = [v.index for v in self._program.variables if v.scope == "global"]
        self._saved_globals = dict(zip(indexes, words, strict=True))
        self._last = values
        self._memory = None

    def load_global(self, var: int) -> int:
        """A global's 64-bit value, unsigned."""
        if self._memory is None:
            return self._saved_globals.get(var, 0)
        return int.from_bytes(self._memory.read(self._global_addr(var), 8), "little")

    def store_global(self, var: int, value: int) -> None:
        """Set a global."""
        value &= (1 << 64) - 1
        self._saved_globals[var] = value
        if self._memory is not None:
            self._memory.write(self._global_addr(var), struct.pack("<Q", value))

    def _global_addr(self, var: int) -> int:
        indexes = [v.index for v in self._program.variables if v.scope == "global"]
        return self._base() + self._plan.variables + 8 * indexes.index(var)


class _Reading:
    """Reads inside happen in one stop where memory is not live."""

    def __init__(self, memory: DataMemory, clock: PauseClock) -> None:
        self._memory = memory
        self._pause = None if memory.live else clock.paused()

    def __enter__(self) -> DataMemory:
        if self._pause is not None:
            self._pause.__enter__()
        return self._memory

    def __exit__(self, *error: object) -> None:
        if self._pause is not None:
            self._pause.__exit__(None, None, None)


class _GuestGlobals:
    """See :class:`probekit.enabling.api.Globals`."""

    def __init__(self, engine: GuestEngine) -> None:
        self._engine = engine

    def load(self, var: int) -> int:
        """The value, unsigned."""
        return self._engine.load_global(var)

    def store(self, var: int, value: int) -> None:
        """Set it."""
        self._engine.store_global(var, value)
