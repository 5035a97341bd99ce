"""The guest engine: the program's clauses as code inside the guest.

    enable   allocate at a safe point -> assemble -> write data and code -> one pause: verify, patch
    poll     read each CPU's ring and counters, by the shared RAM file without a stop where there is one
    disable  one pause: restore -> safe point: wait for readers, copy what is left to read, free

The journal hears of everything before it is done.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from probekit.buffers.layout import plan_block
from probekit.codegen.context import Context
from probekit.consumer.events import Probe
from probekit.enabling.api import Drained, EngineLog, EngineOptions, Rows
from probekit.enabling.blocks import Blocks
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
from probekit.patch.edits import Edit, EditSet, TextMemory, apply_edits, revert_edits, rips_inside
from probekit.target.api import Target

__all__ = ("GuestEngine", "MemoryFactory")

MemoryFactory = Callable[[Allocation], DataMemory]
"""Makes the way to our data memory; called with the guest stopped."""

_FAR_SLOT = 1 << 40  # an offset that needs the long form of every access, for the upper bound of the code's size
_WINDOW_TRIES = 50
_CODE_CHUNK = 1 << 20
_MASK = (1 << 64) - 1
_NOTHING = Drained((), {}, {}, {})


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
        self._cpus = _block_owners(facts)
        self._layout = plan_block(
            program.aggregations, sites=len(self._sites), aggsize=options.aggsize, bufsize=options.bufsize
        )
        self._plan = plan_data(program, self._sites, self._layout, len(self._cpus))
        self._blocks: Blocks | None = None
        self._allocations: list[Allocation] = []
        self._edits: EditSet | None = None
        self.code: tuple[int, bytes] | None = None

    # -- Engine -----------------------------------------------------------------------------------------------------

    @property
    def globals_(self) -> Blocks:
        """The program's globals in guest memory (a copy of them once that is freed)."""
        if self._blocks is None:
            raise GuestError("nothing is enabled")
        return self._blocks

    @property
    def guest_bytes(self) -> int:
        """Guest memory in use."""
        return sum(memory.size for memory in self._allocations)

    def enable(self, initial: Mapping[int, int]) -> None:
        """Allocate, assemble, write, patch. On any error everything is taken back before it is raised."""
        try:
            slot, data, code = self._allocate()
            context = self._context(data=data.addr, slot=slot.addr)
            stubs = plan_stubs(self._program, self._sites, context)
            image, edits, _ = build_code(self._program, self._sites, stubs, context, code.addr)
            if len(image) > code.size:
                raise AssertionError("the code is larger than its upper bound")
            self._write_data(slot, data, initial)
            self._write_code(code, image)
            self.code = (code.addr, image)
            self._patch(edits)
        except BaseException:
            self.disable()
            if not self._target.running:
                self._target.resume()
            raise

    def poll(self, timeout: float) -> Drained:
        """Take what is in the rings; waits in small steps while they are empty."""
        if self._blocks is None:
            return _NOTHING
        deadline = time.monotonic() + timeout
        step = 0.02 if self._blocks.memory.live else 0.25
        while True:
            drained = self._blocks.drain()
            left = deadline - time.monotonic()
            if drained.records or left <= 0:
                return drained
            self._watch(min(step, left))

    def aggregations(self) -> dict[int, Rows]:
        """All values of all CPUs as they are now, or as they were when probing ended."""
        return self._blocks.aggregations() if self._blocks is not None else {}

    def silence(self) -> None:
        """See :class:`probekit.enabling.api.Engine`."""
        if self._blocks is not None:
            self._blocks.silence()

    def disable(self) -> list[str]:
        """Restore, wait until nobody is inside our code, copy what is left to read, free."""
        problems: list[str] = []
        if self._edits is not None:
            with self._clock.paused():
                report = revert_edits(self._text, self._edits)
            problems += [f"{addr:#x} was changed by somebody else and is left alone" for addr, _ in report.conflicts]
            problems += [f"{addr:#x} is not mapped any more" for addr in report.unreadable]
            self._edits = None
            if report.clean:
                self._log.reverted()
        if self._allocations:
            problems += self._release()
        return problems

    # -- enabling ---------------------------------------------------------------------------------------------------

    def _allocate(self) -> tuple[Allocation, Allocation, Allocation]:
        """Per-CPU slot, data and code memory, at one safe point. The code's size is known only as a bound yet."""
        near = self._facts.places.landings[0]
        rough = self._context(data=1 << 62, slot=_FAR_SLOT)
        bound = code_size(self._program, self._sites, plan_stubs(self._program, self._sites, rough), rough, near)
        services = self._facts.services
        with self._safe_point(self._cancelled) as point:
            slot = self._take(services.allocate(point, "percpu", 8))
            data = self._take(services.allocate(point, "data", self._plan.size))
            code = self._take(services.allocate(point, "exec", bound))
            services.make_executable(point, code)
            self._blocks = Blocks(
                self._make_memory(data),
                data.addr,
                plan=self._plan,
                layout=self._layout,
                program=self._program,
                cpus=self._cpus,
                probes={s.index: Probe(s.probe.id, s.probe.name) for s in self._sites},
                clock=self._clock,
            )
        self._target.resume()
        return slot, data, code

    def _safe_point(self, cancelled: Callable[[], bool]) -> SafePoint:
        return SafePoint(
            self._target,
            self._facts.places,
            log=self._log,
            timeout=self._options.safepoint_s,
            cancelled=cancelled,
            clock=self._clock,
        )

    def _take(self, memory: Allocation) -> Allocation:
        self._allocations.append(memory)
        self._log.allocated(memory)
        return memory

    def _context(self, *, data: int, slot: int) -> Context:
        return Context(
            layout=self._layout,
            aggregations=self._program.aggregations,
            globals_=tuple(v for v in self._program.variables if v.scope == "global"),
            slot=slot - (1 << 64) if slot >> 63 else slot,
            activity=data,
            variables=data + self._plan.variables,
            sites=data + self._plan.sites,
            strings=data + self._plan.strings,
            constants=self._plan.constants,
            preemptible=self._facts.preemptible,
            task=self._facts.task,
            clock=self._facts.clock,
        )

    def _write_data(self, slot: Allocation, data: Allocation, initial: Mapping[int, int]) -> None:
        """Tables, globals and block heads, and the per-CPU slots that lead to the blocks. No CPU reads them yet."""
        blocks = self.globals_
        with self._clock.paused():
            blocks.memory.write(data.addr, self._plan.head)
            for var, value in initial.items():
                blocks.store(var, value)
            for index in range(len(self._cpus)):
                blocks.memory.write(data.addr + self._plan.block(index), DataPlan.block_head())
            index_of = {cpu: index for index, cpu in enumerate(self._cpus)}
            slots: list[tuple[int, bytes]] = []
            for cpu, offset in self._facts.cpu_offsets.items():
                block = data.addr + self._plan.block(index_of.get(cpu, len(self._cpus) - 1))
                slots.append(((slot.addr + offset) & _MASK, struct.pack("<Q", block)))
            self._text.write_many(slots)

    def _write_code(self, code: Allocation, image: bytes) -> None:
        """Code that no CPU can reach yet, in pieces with a short pause each; read back."""
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
        ready = EditSet(edits)
        self._log.edits(ready.edits)
        self._edits = ready
        for _ in range(_WINDOW_TRIES):
            with self._clock.paused():
                rips = [self._target.regs(vcpu)["rip"] for vcpu in self._target.vcpus()]
                if not rips_inside(rips, ready):
                    apply_edits(self._text, ready, lambda _: None)
                    return
            time.sleep(0.001)
        raise GuestError("a vCPU stayed inside the bytes to be patched", hint="try again, or probe fewer functions")

    # -- while it runs ----------------------------------------------------------------------------------------------

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
        """Wait for readers, keep what is to be read, free. Memory that must stay is left inert, and said so."""
        services = self._facts.services
        try:
            with self._safe_point(lambda: False) as point:
                services.synchronize(point)
                self._leave_quietly()
                self._freeze()
                for memory in reversed(self._allocations):
                    services.free(point, memory)
                    self._log.freed(memory)  # killed in between: the log has the call, and that it returned
                self._allocations = []
            self._target.resume()
        except GuestError as error:
            self._freeze()
            if not self._target.running:
                with suppress(GuestError):  # a dead guest stays as it is
                    check_status(self._target)
                    self._target.resume()
            size = self.guest_bytes
            self._allocations = []
            return [f"{size} bytes of guest memory are left behind, inert: {error.message}"]
        return []

    def _freeze(self) -> None:
        if self._blocks is not None:
            self._blocks.freeze()

    def _leave_quietly(self) -> None:
        """Nobody came back to our code after the wait for readers; a vCPU in it now is an idle one, for an instant."""
        code = next((m for m in self._allocations if m.kind == "exec"), None)
        if code is None:
            return
        for vcpu in self._target.vcpus():
            rip = self._target.regs(vcpu)["rip"]
            if code.addr <= rip < code.addr + code.size:
                raise GuestError(f"vCPU {vcpu} is still inside probekit's code at {rip:#x}")


def _block_owners(facts: GuestFacts) -> tuple[int, ...]:
    """The CPUs that get a block: those online, and one that all CPUs share which may come online later.

    A machine may have many more possible CPUs than it has; a block for each would take their memory for nothing.
    """
    spare = sorted(facts.cpu_offsets.keys() - set(facts.online))[:1]
    return (*sorted(facts.online), *spare)
