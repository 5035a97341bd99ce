"""The same firings through the host's evaluator and through the emulated code: is everything equal?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probekit.buffers.actions import Exit
from probekit.buffers.layout import FAULT_WORDS, HeaderWord, RawRecord
from probekit.interp.run import run_clause
from tests.codegen.emulated_kernel import DONE, GID, KMEM, KMEM_BYTES, PPID, RUN_NS, TASK, TIME, UID, WALL_TIME
from tests.codegen.machine import Machine
from tests.interp.worlds import World

Records = list[tuple[int, int, int, bytes]]  # clause, site, fault, payload

_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")


def _kernel_memory(addr: int, size: int) -> bytes | None:
    at = addr - KMEM
    return KMEM_BYTES[at : at + size] if 0 <= at <= at + size <= len(KMEM_BYTES) else None


def _error(returned: int) -> int:
    error = -returned & 0xFFFFFFFF
    return error if error < 4096 else 0


class Compared:
    """One machine and its model. :meth:`fire` fires both; :meth:`check` compares what they hold."""

    def __init__(self, text: str, **options: Any) -> None:
        self.machine = Machine(text, **options)
        self.world = World(self.machine.program)
        self.world.state.memory.read_guest = _kernel_memory
        self.faults = 0
        self.silent = False

    def fire(self, *args: int, function: int = 0, returned: int = 0) -> None:
        """Call a function with up to six arguments (at most six are compared)."""
        machine = self.machine
        regs = {name: args[n] if n < len(args) else 0 for n, name in enumerate(_ARGUMENTS)}
        fired = machine.fire(function, rax=returned, **regs)
        assert fired.fault == 0
        assert fired.bad == ()
        expected = self._model(args, function, returned)
        found: Records = [(r.clause, r.site, r.fault, self._fields(r)) for r in machine.drain()]
        assert found == expected
        assert machine.globals_() == {
            v.index: self.world.variables.get(v.index, 0)
            for v in machine.program.variables
            if v.scope == "global" and v.plain and v.kind == "int"
        }

    def _fields(self, record: RawRecord) -> bytes:
        """The payload without what the ring held before: no field covers the bytes between two fields."""
        plan = self.machine.program.clauses[record.clause].record
        if record.fault or plan is None:
            return record.payload
        clean = bytearray(len(record.payload))
        for place in plan.fields:
            span = slice(place.offset, place.offset + place.size)
            clean[span] = record.payload[span]
        return bytes(clean)

    def _model(self, args: tuple[int, ...], function: int, returned: int) -> Records:
        machine, world = self.machine, self.world
        addr_sites = [s for s in machine.sites if s.probe.id == 100 + function]
        site = addr_sites[0]
        entry = machine.functions[function].kind == "entry"
        given = (*args, *[0] * (10 - len(args))) if entry else (site.offset, returned, *[0] * 8)
        world.args = given
        world.variables = {v: x for v, x in world.variables.items() if machine.program.variables[v].scope == "global"}
        name = site.probe.name
        world.builtins |= {
            "curabi": b"x86_64",
            "execname": machine.comm,
            "pid": machine.pid,
            "tid": machine.tid,
            "cpu": machine.cpu,
            "timestamp": TIME,
            "walltimestamp": WALL_TIME,
            "vtimestamp": RUN_NS,
            "errno": _error(0 if entry else returned),
            "curthread": TASK,
            "ppid": PPID,
            "uid": UID,
            "gid": GID,
            "caller": DONE,
            "id": site.probe.id,
            "probeprov": name.provider.encode(),
            "probemod": name.module.encode(),
            "probefunc": name.function.encode(),
            "probename": name.name.encode(),
        }
        records: Records = []
        for number in site.clauses:
            if self.silent:
                break
            clause = machine.program.clauses[number]
            world.builtins["epid"] = number + 1
            outcome = run_clause(clause, machine.program, world, world.state)
            if outcome.fault is not None:
                self.faults += 1
                fault = outcome.fault
                words = FAULT_WORDS.pack((fault.value or 0) & (1 << 64) - 1, fault.action, 4 * fault.op)
                records.append((number, site.number, int(fault.kind), words))
            elif outcome.record is not None:
                assert clause.record is not None
                records.append((number, site.number, 0, outcome.record))
                self.silent = any(isinstance(action, Exit) for action in clause.record.actions)
        world.state.end_firing()
        return records

    def check(self) -> None:
        """Aggregations and counters."""
        machine = self.machine
        for plan in machine.program.aggregations:
            expected: Mapping[Any, Any] = self.world.aggs.table(plan.index)
            assert machine.table(plan.index) == dict(expected), plan
            assert machine.word(HeaderWord.AGG_DROPS + plan.index) == 0
        assert machine.word(HeaderWord.FAULTS) == self.faults
        for word in (HeaderWord.GUARD, HeaderWord.PRINCIPAL_DROPS, HeaderWord.RECURSION_DROPS):
            assert machine.word(word) == 0
        assert machine.activity == int(self.silent)


def compare(text: str, *firings: tuple[int, ...], **options: Any) -> Compared:
    """Fire a script with each of ``firings`` and compare everything; the two sides, for more questions."""
    both = Compared(text, **options)
    for args in firings:
        both.fire(*args)
    both.check()
    return both
