"""The stop engine: a firing stops the guest, the host evaluates the clauses, the guest goes on in a copied instruction.

    site      breakpoint through the stub; guest text is not changed
    firing    every vCPU that stands at a site: evaluate, then RIP = its slot
    slot      the site's own instruction, nop, nop, jump back behind it

Slow (about a millisecond a firing), but it is plain: what the guest engine is
compared with. Its slots are the only memory that it needs of the guest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from probekit.buffers.layout import RawRecord
from probekit.codegen.context import TaskOffsets
from probekit.enabling.api import Drained, EngineLog, EngineOptions, Rows
from probekit.enabling.facts import GuestFacts
from probekit.enabling.host import Firing, HostGlobals, fire
from probekit.enabling.sites import EnabledSite
from probekit.errors import GuestError, ProbekitError, UnsupportedError
from probekit.guest.health import check_status
from probekit.guest.linux import Allocation
from probekit.guest.memory import PauseClock
from probekit.guest.safepoint import SafePoint
from probekit.interp.aggs import Aggregations
from probekit.interp.run import Value
from probekit.interp.state import State
from probekit.ir.ops import Program
from probekit.patch.detours import copied_slot
from probekit.patch.edits import TextMemory
from probekit.target.api import Regs, Target

if TYPE_CHECKING:
    from probekit.enabling.guest import MemoryFactory

__all__ = ("MAX_STOP_SITES", "StopEngine")

MAX_STOP_SITES = 1000
"""The stub looks through all breakpoints again and again: beyond this the guest crawls."""

_SLOT_SIZE = 32
_ARGS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_MASK = (1 << 64) - 1


class _VcpuWorld:
    """A stopped vCPU at a site: a :class:`probekit.enabling.host.World`."""

    def __init__(self, site: EnabledSite, regs: Regs, text: TextMemory, task: TaskOffsets | None) -> None:
        self._site = site
        self._regs = regs
        self._text = text
        self._task = task

    def arg(self, index: int) -> int:
        """argN by the System V ABI at an entry; offset and returned value at a return."""
        if self._site.probe.kind == "return":
            return {0: self._site.offset, 1: self._regs["rax"]}.get(index, 0)
        if index < len(_ARGS):
            return self._regs[_ARGS[index]]
        return self._word(self._regs["rsp"] + 8 + 8 * (index - len(_ARGS)), 8)

    def fact(self, name: str) -> Value:
        """A fact of the task that runs on this vCPU, from guest memory."""
        if name == "timestamp":
            return time.monotonic_ns()
        task = self._task
        if task is None:
            raise UnsupportedError(f"{name} needs the kernel's type information", feature=name)
        base = self._regs["gs_base"]
        if name == "cpu":
            return self._word(base + task.cpu, 4)
        current = self._word(base + task.current, 8)
        match name:
            case "pid":
                return self._word(current + task.tgid, 4)
            case "tid":
                return self._word(current + task.pid, 4)
            case "execname":
                return self._bytes(current + task.comm, 16).split(b"\0", 1)[0]
            case _:
                raise UnsupportedError(f"{name} is not implemented in the stop engine", feature=name)

    def progenyof(self, pid: int) -> bool:
        """Not known of a guest's task."""
        raise UnsupportedError("progenyof() is not implemented in the stop engine", feature="progenyof")

    def _bytes(self, addr: int, size: int) -> bytes:
        data = self._text.read_many([(addr & _MASK, size)])[0]
        if data is None:
            raise GuestError(f"the guest's memory at {addr & _MASK:#x} cannot be read")
        return data

    def _word(self, addr: int, size: int) -> int:
        return int.from_bytes(self._bytes(addr, size), "little")


class StopEngine:
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
        self._sites = {site.site.addr: site for site in sites}
        self._options = options
        self._log = log
        self._clock = clock
        self._cancelled = cancelled
        self._slots: dict[int, int] = {}
        self._memory: Allocation | None = None
        self._aggregations = Aggregations(program.aggregations)
        self._state = State(program)
        self._silent = False
        self._cpu_of: Mapping[int, int] = {}
        self.globals_ = HostGlobals()
        self.guest_bytes = 0

    def enable(self, initial: Mapping[int, int]) -> None:
        """Allocate and write the slots, then set every breakpoint."""
        self.globals_.values.update(initial)
        if len(self._sites) > MAX_STOP_SITES:
            raise UnsupportedError(
                f"{len(self._sites)} sites are too many for breakpoints (the limit is {MAX_STOP_SITES})",
                feature="stop engine",
                hint="probe fewer functions, or use --engine guest",
            )
        try:
            with self._safe_point() as point:
                memory = self._facts.services.allocate(point, "exec", _SLOT_SIZE * len(self._sites))
                self._memory = memory
                self._log.allocated(memory)
                self._facts.services.make_executable(point, memory)
            self.guest_bytes = memory.size
            slots: list[tuple[int, bytes]] = []
            for number, site in enumerate(self._sites.values()):
                addr = memory.addr + number * _SLOT_SIZE
                self._slots[site.site.addr] = addr
                slots.append((addr, copied_slot(site.site, addr)))
            self._text.write_many(slots)
            for addr in self._sites:
                self._target.set_breakpoint(addr)
            self._target.resume()
        except BaseException:
            self.disable()
            if not self._target.running:
                self._target.resume()
            raise

    def poll(self, timeout: float) -> Drained:
        """Serve stops until ``timeout``; records come back in order."""
        records: list[tuple[int, RawRecord]] = []
        deadline = time.monotonic() + timeout
        while self._memory is not None and (left := deadline - time.monotonic()) > 0:
            stop = self._target.wait(left)
            if stop is None:
                break
            if stop.kind == "exited":
                raise GuestError("the guest ended while it was traced")
            served = self._serve()
            if not served:  # not a site of ours: somebody else stopped it
                check_status(self._target)
            records += served
            self._target.resume()
        return Drained(tuple(records), {}, {}, {})

    def aggregations(self) -> dict[int, Rows]:
        """The host's own tables."""
        return {plan.index: list(self._aggregations.table(plan.index).items()) for plan in self._program.aggregations}

    def silence(self) -> None:
        """Stops go on being served, but no clause is evaluated."""
        self._silent = True

    def disable(self) -> list[str]:
        """Clear the breakpoints; free the slots once nobody can be in one."""
        memory, self._memory = self._memory, None
        if memory is None:
            return []
        if self._target.running:
            self._target.stop()
        for vcpu in self._target.vcpus():
            self._move_on(vcpu, self._target.regs(vcpu))
        for addr in self._sites:
            self._target.clear_breakpoint(addr)
        try:
            with self._safe_point(cancelled=lambda: False) as point:
                self._facts.services.synchronize(point)
                self._facts.services.free(point, memory)
                self._log.freed(memory)
        except ProbekitError as error:
            return [f"{memory.size} bytes of guest memory are left behind, inert: {error.message}"]
        finally:
            if not self._target.running:
                with suppress(GuestError):  # a dead guest stays as it is
                    check_status(self._target)
                    self._target.resume()
        return []

    def _safe_point(self, cancelled: Callable[[], bool] | None = None) -> SafePoint:
        return SafePoint(
            self._target,
            self._facts.places,
            log=self._log,
            timeout=self._options.safepoint_s,
            cancelled=cancelled or self._cancelled,
            clock=self._clock,
        )

    def _serve(self) -> list[tuple[int, RawRecord]]:
        """Every vCPU that stands at a site: one of them stopped the guest, others may have arrived as well."""
        found: list[tuple[int, RawRecord]] = []
        for vcpu in self._target.vcpus():
            regs = self._target.regs(vcpu)
            site = self._sites.get(regs["rip"])
            if site is None or regs.in_user_mode:
                continue
            if not self._silent:
                world = _VcpuWorld(site, regs, self._text, self._facts.task)
                firing = Firing(site.probe, self._program, world, self.globals_, self._aggregations, state=self._state)
                clauses = [self._program.clauses[number] for number in site.clauses]
                records = fire(clauses, self._program, firing, site.index, time.monotonic_ns())
                found += [(vcpu - 1, record) for record in records]
            self._move_on(vcpu, regs)
        return found

    def _move_on(self, vcpu: int, regs: Regs) -> None:
        slot = self._slots.get(regs["rip"])
        if slot is not None and not regs.in_user_mode:
            self._target.set_regs(vcpu, regs.replace(rip=slot))
