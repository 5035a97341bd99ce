"""Probes that the host fires: what exit(), speculations and full buffers do, and how ERROR is fired."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from probekit.buffers.layout import RECORD_HEADER, FaultKind, RawRecord
from probekit.enabling.ecb import Ecb
from probekit.enabling.host.firing import HostGlobals
from probekit.enabling.host.probes import GuestView, HostProbes, record_integer
from probekit.enabling.speculation import Speculations
from probekit.interp.aggs import Aggregations
from probekit.ir.build import compile_program
from probekit.providers.dtrace import BEGIN, END, ERROR

SITES = {BEGIN.id: 0, END.id: 1, ERROR.id: 2}
ONE = RECORD_HEADER.size + 8  # bytes of a record with one integer of 8 bytes


class Run:
    """Where ``exit()`` is noted."""

    exit_called = False

    def call_exit(self) -> None:
        self.exit_called = True


def made(text: str, **options: Any) -> tuple[HostProbes, Run, Any]:
    program, run = compile_program(text), Run()
    by_probe: dict[int, list[int]] = {}
    for clause in program.clauses:
        by_probe.setdefault(_probe_of(clause), []).append(clause.index)
    ecbs = {number: Ecb(probe, tuple(by_probe.get(number, ()))) for number, probe in PROBES.items()}
    host = HostProbes(
        program,
        run=run,
        aggregations=Aggregations(program.aggregations),
        globals_=HostGlobals,
        site_of=SITES,
        errors=[ecbs[ERROR.id]] if ecbs[ERROR.id].clauses else [],
        speculations=Speculations(2, 1 << 10),
        bufsize=options.pop("bufsize", 1 << 10),
        **options,
    )
    return host, run, ecbs


PROBES = {probe.id: probe for probe in (BEGIN, END, ERROR)}


def _probe_of(clause: Any) -> int:
    (description,) = clause.probes
    return {"BEGIN": BEGIN.id, "END": END.id, "ERROR": ERROR.id}[description.name]


def values(host: HostProbes) -> list[int]:
    """The last integers of the records."""
    return [int(struct.unpack("<q", record.payload[-8:])[0]) for _, record in host.take() if not record.fault]


def test_records_wait_until_they_are_taken() -> None:
    host, _, ecbs = made("BEGIN { trace(3L); } BEGIN { trace(4L); } END { trace(5L); }")
    host.fire(ecbs[BEGIN.id], timestamp=7)
    (cpu, first), (_, second) = host.take()
    assert (cpu, first.clause, first.timestamp, first.site) == (0, 0, 7, 0) and second.clause == 1
    host.fire(ecbs[END.id], cpu=2)
    assert host.take()[0][0] == 2 and host.take() == []


def test_after_exit_only_end_and_error_run() -> None:
    host, run, ecbs = made("BEGIN { exit(7); } BEGIN { trace(2L); } END { trace(9L); }")
    host.fire(ecbs[BEGIN.id])
    assert run.exit_called and values(host) == [7]
    host.fire(ecbs[BEGIN.id])
    assert values(host) == []
    host.fire(ecbs[END.id])
    assert values(host) == [9]


@pytest.mark.parametrize(
    ("policy", "kept", "drops", "exits"),
    [("switch", [0, 1], 3, False), ("fill", [0, 1], 0, True), ("ring", [3, 4], 0, False)],
)
def test_a_full_buffer_does_what_its_policy_says(policy: str, kept: list[int], drops: int, exits: bool) -> None:
    text = " ".join(f"BEGIN {{ trace({n}L); }}" for n in range(5))
    host, run, ecbs = made(text, bufsize=2 * ONE, bufpolicy=policy)
    host.fire(ecbs[BEGIN.id])
    assert values(host) == kept and host.drops == drops and run.exit_called == exits
    host.fire(ecbs[END.id])
    host._run = Run()
    host.fire(ecbs[BEGIN.id])
    assert values(host) == kept, "what was taken makes room"


def test_speculative_records_come_with_the_commit() -> None:
    host, _, ecbs = made(
        "int s; BEGIN { s = speculation(); } BEGIN { speculate(1); trace(5L); } BEGIN { trace(6L); } END { commit(1); }"
    )
    host.fire(ecbs[BEGIN.id])
    assert values(host) == [6]
    host.fire(ecbs[END.id])
    assert values(host) == [5]


def test_discarded_records_are_gone() -> None:
    host, _, ecbs = made(
        "BEGIN { s = speculation(); } BEGIN { speculate(1); trace(5L); } END { discard(1); commit(1); }"
    )
    host.fire(ecbs[BEGIN.id])
    host.fire(ecbs[END.id])
    assert values(host) == []


def test_a_fault_is_recorded_and_fires_error_with_its_facts() -> None:
    host, _, ecbs = made(
        "int64_t z; BEGIN { trace(1L); } BEGIN { trace(1 / z); }"
        "ERROR { trace(arg1); } ERROR { trace(arg3); } ERROR { trace(arg4); }"
    )
    host.fire(ecbs[BEGIN.id])
    records = [record for _, record in host.take()]
    assert [record.clause for record in records] == [0, 1, 2, 3, 4] and records[1].fault == FaultKind.DIVZERO
    epid, offset, fault = (struct.unpack_from("<q", record.payload)[0] for record in records[2:])
    assert (epid, fault) == (2, FaultKind.DIVZERO) and offset > 0 and offset % 4 == 0


def test_a_fault_in_error_fires_nothing_more() -> None:
    host, _, ecbs = made("int64_t z; BEGIN { trace(1 / z); } ERROR { trace(1 / z); }")
    host.fire(ecbs[BEGIN.id])
    assert host.double_errors == 1 and len(host.take()) == 1


def test_the_faults_of_a_guest_fire_error_too_whatever_they_hold() -> None:
    host, _, _ = made("ERROR { trace(arg5); } ERROR { trace(arg1); }")
    host.error(RawRecord(6, 44, 0, 1, struct.pack("<Q", 0x1234)))
    assert values(host) == [0x1234, 7]


def test_a_guests_pages_are_looked_up_anew_for_each_firing() -> None:
    class Loads:
        looked = 0

        def read(self, addr: int, size: int) -> bytes | None:
            return None

        def invalidate(self) -> None:
            self.looked += 1

    loads = Loads()
    shown: Any = loads
    guest = GuestView(shown, lambda: 0x5000)
    host, _, ecbs = made("BEGIN { trace(1L); }", guest=guest)
    host.fire(ecbs[BEGIN.id])
    host.fire(ecbs[BEGIN.id])
    assert loads.looked == 2


def test_integers_of_records() -> None:
    program = compile_program("BEGIN { speculate(-3); } ")
    plan = program.clauses[0].record
    assert plan is not None
    record = RawRecord(0, 0, 0, 0, (-3).to_bytes(plan.fields[0].size, "little", signed=True))
    assert record_integer(plan, record, 0) & 0xFFFFFFFF == 0xFFFFFFFD
