"""One firing on the host: where arguments, built-ins and variables come from, and the records that are left."""

from __future__ import annotations

import os
import struct
import threading
from typing import Any

import pytest

from probekit.buffers.layout import FAULT_WORDS, FaultKind
from probekit.enabling.host.firing import Firing, HostGlobals, HostWorld, fire
from probekit.errors import InternalError
from probekit.interp.aggs import Aggregations
from probekit.ir.build import compile_program
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe

PROBE = Probe(17, ProbeName("fbt", "vmlinux", "f", "entry"), "entry")


class World:
    """A task of the test's: ``facts`` by name."""

    facts = {"execname": b"sh", "pid": 40}  # noqa: RUF012 - never changed

    def arg(self, index: int) -> int:
        return 100 + index

    def fact(self, name: str) -> Any:
        return self.facts[name]

    def progenyof(self, pid: int) -> bool:
        return pid == 40

    def stack(self, frames: int) -> bytes:
        return bytes(8 * frames)


def made(text: str, world: Any = None) -> tuple[Firing, Any, HostGlobals, Aggregations]:
    program = compile_program(text, allow_bare=True)
    globals_, aggregations = HostGlobals(), Aggregations(program.aggregations)
    return Firing(PROBE, program, world or World(), globals_, aggregations), program, globals_, aggregations


def test_clauses_see_the_world_and_share_globals() -> None:
    firing, program, globals_, aggregations = made(
        "int64_t x; this int64_t y;"
        "fbt::: { this->y = arg1; x = x + this->y; @s[execname, probefunc] = sum(x); }"
        "fbt::: /pid == 40/ { trace(this->y); trace(id); trace(execname); }"
    )
    (record,) = fire(program.clauses, program, firing, site=3, timestamp=9)
    assert (record.clause, record.timestamp, record.site, record.fault) == (1, 9, 3, 0)
    assert struct.unpack_from("<qI", record.payload) == (101, 17) and b"sh\0" in record.payload
    assert globals_.values == {0: 101}
    assert list(aggregations.table(0).values()) == [(101,)]


def test_a_fault_leaves_the_record_that_code_in_a_guest_would_leave() -> None:
    firing, program, _, _ = made("int64_t z; fbt::: { trace(1 / z); } fbt::: { trace(2); }")
    fault, after = fire(program.clauses, program, firing, site=0, timestamp=1)
    assert fault.fault == FaultKind.DIVZERO and len(fault.payload) == FAULT_WORDS.size
    assert (after.clause, after.fault) == (1, 0), "the next clause runs all the same"


def test_the_epid_is_the_clauses() -> None:
    firing, program, _, _ = made("fbt::: { trace(epid); } fbt::: { trace(epid); }")
    first, second = fire(program.clauses, program, firing, 0, 0)
    assert [int.from_bytes(r.payload[:4], "little") for r in (first, second)] == [1, 2]


def test_a_string_among_integer_globals_is_a_bug() -> None:
    firing = made("int64_t x; fbt::: { x = 1; }")[0]
    with pytest.raises(InternalError):
        firing.store(0, b"text")


def test_nobody_speculates_without_speculations() -> None:
    assert made("fbt::: { x = 1; }")[0].speculation() == 0


def test_this_process_is_a_world() -> None:
    world = HostWorld((7, 8), lambda: 0x1000)
    assert [world.arg(n) for n in range(3)] == [7, 8, 0]
    assert world.fact("pid") == os.getpid() and world.fact("tid") == threading.get_native_id()
    assert world.fact("percpu_offset") == 0x1000 and world.fact("execname") == b"probekit"
    assert world.fact("curthread") == 0 and world.stack(4) == b""
    assert world.progenyof(os.getpid()) and world.progenyof(os.getppid()) and not world.progenyof(0x3FFFFFFF)
    assert HostWorld().fact("percpu_offset") == 0
