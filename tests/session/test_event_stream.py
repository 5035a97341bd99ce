"""Records to events: printa() and the aggregations, faults, speculation, drops and setopt()."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probekit.buffers import actions as acts
from probekit.buffers.aggs import AggPlan
from probekit.buffers.formats import parse_format
from probekit.buffers.layout import RawRecord
from probekit.consumer.events import Event, ProbeFired, ProbeIdentity, TraceInt
from probekit.enabling.api import Drained
from probekit.enabling.ecb import match_program
from probekit.enabling.speculation import Ending
from probekit.errors import GuestError, ProbekitError
from probekit.ir import ops
from probekit.ir.build import compile_program
from probekit.probe.names import ProbeName
from probekit.providers.registry import make_registry
from probekit.session.event_stream import EventStream
from probekit.session.host_tracing import HostTracing
from probekit.session.options import Options
from probekit.session.run import Run
from probekit.session.run_state import RunState

from .programs import aggregate, clause, printed, program, run

SUM = AggPlan(0, "a", "sum", ())


def say(text: str) -> acts.Printf:
    return acts.Printf(parse_format(text), ())


def end(field: int = 0) -> acts.Exit:
    return acts.Exit(field)


def test_silent_actions_show_nothing() -> None:
    out, _, _ = run(program(clause(0, "BEGIN", [acts.Commit(0)], [0])), Options())
    assert out == "\n"


def test_a_printa_sees_what_was_aggregated_until_it_is_read() -> None:
    out, _, _ = run(
        program(
            clause(0, "BEGIN", [acts.Printa(None, (0,))], [], *aggregate(0, 5)),
            clause(1, "BEGIN", [end()], [0], *aggregate(0, 2)),
            clause(2, "END", [acts.Printa(parse_format("%@d\n"), (0,))], [], *aggregate(0, 3)),
            aggs=[SUM],
        )
    )
    assert out == "\n               10\n10\n\n"


def test_what_was_not_printed_is_printed_at_the_end() -> None:
    out, _, _ = run(program(clause(0, "BEGIN", [], [], *aggregate(0, 5)), aggs=[SUM]))
    assert out == "\n                5\n"


def test_normalize_clear_and_trunc_change_what_is_printed_later() -> None:
    made = program(
        clause(0, "BEGIN", [acts.Normalize(0, 0), acts.Printa(parse_format("%@d "), (0,))], [5], *aggregate(0, 100)),
        clause(1, "BEGIN", [acts.Denormalize(0), acts.Printa(parse_format("%@d "), (0,))]),
        clause(2, "BEGIN", [acts.Clear(0), acts.Printa(parse_format("%@d "), (0,))]),
        clause(3, "BEGIN", [acts.Trunc(0), acts.Printa(parse_format("%@d "), (0,))]),
        aggs=[SUM],
    )
    assert run(made)[0] == "20 100 0 \n"


def test_a_fault_aborts_its_clause_fires_error_and_goes_on() -> None:
    divide = (ops.Int(1, 1), ops.Int(2, 0), ops.Bin(3, ops.BinOp.SDIV, 1, 2))
    seen = (ops.LoadArg(4, 1), ops.LoadArg(5, 4))
    error = clause(1, "ERROR", [acts.Printf(parse_format("%d %d\n"), (0, 1))], [0, 0], *seen)
    block = error.blocks[0]
    copied = tuple(ops.Emit(op.field, 4 + op.field) if isinstance(op, ops.Emit) else op for op in block.ops)
    error = replace(error, blocks=(replace(block, ops=copied),))
    out, messages, _ = run(
        program(
            clause(0, "BEGIN", [say("never\n")], [], *divide), error, clause(2, "BEGIN", [say("after\n"), end()], [0])
        )
    )
    assert out == "1 4\nafter\n\n"
    assert messages == "probekit: error in clause 1 for probe ID 1 (dtrace:::BEGIN): divide-by-zero at line 1\n"


def test_a_fault_in_error_is_counted() -> None:
    divide = (ops.Int(1, 1), ops.Int(2, 0), ops.Bin(3, ops.BinOp.SDIV, 1, 2))
    _, messages, _ = run(
        program(clause(0, "BEGIN", [say("x")], [], *divide), clause(1, "ERROR", [say("y")], [], *divide))
    )
    assert "1 error in ERROR probe enabling\n" in messages


def test_a_speculation_shows_its_records_when_it_is_committed() -> None:
    made = program(
        clause(0, "BEGIN", [acts.Speculate(0), say("kept\n")], [1]),
        clause(1, "BEGIN", [say("first\n")]),
        clause(2, "BEGIN", [acts.Commit(0)], [1]),
        clause(3, "BEGIN", [acts.Speculate(0), say("lost\n")], [1]),
    )
    with Run(None, made, Options(quiet=True)) as trace:
        assert trace._host.speculations.acquire() == 1
        assert printed(list(trace.events())) == "first\nkept\n"


class _FromGuest:
    """A program whose clauses run in a guest, and the records that they leave."""

    def __init__(self, script: str, nspec: int = 1) -> None:
        self.program = compile_program(script, allow_bare=True)
        registry, options, state = make_registry(None), Options(nspec=nspec), RunState()
        matching = match_program(self.program, registry)
        self.host = HostTracing(self.program, matching, options, state, attachment=None, in_guest=lambda: None)
        self.stream = EventStream(self.program, options, self.host, None, state)
        self.stream.begin({0: ProbeIdentity(9, ProbeName("fbt", "vmlinux", "f", "entry"))})
        self.host.speculations.share(self)
        self.released: list[int] = []

    def release(self, number: int) -> None:
        """See :class:`probekit.enabling.speculation.SharedNumbers`."""
        self.released.append(number)

    def acquire(self) -> int:
        raise AssertionError

    def speculate(self, number: int) -> bool:
        raise AssertionError

    def end(self, number: int) -> Ending:
        raise AssertionError

    def record(self, cpu: int, at: int, clause: int, *values: int) -> tuple[int, RawRecord]:
        """A record of a clause whose integers are these."""
        plan = self.program.clauses[clause].record
        assert plan is not None
        payload = bytearray(plan.size)
        for field, value in zip(plan.fields, values, strict=True):
            payload[field.offset : field.offset + field.size] = (value & (1 << 8 * field.size) - 1).to_bytes(
                field.size, "little"
            )
        return cpu, RawRecord(clause, at, 0, 0, bytes(payload))

    def shown(self, *records: tuple[int, RawRecord]) -> list[tuple[int, ...]]:
        """CPU and values of each record that one reading shows."""
        events = self.stream.of_guest(Drained(records, {}, {}, {}))
        fired = [event for event in events if isinstance(event, ProbeFired)]
        return [(e.cpu, *(i.value for i in e.items if isinstance(i, TraceInt))) for e in fired if e.items]


SPECULATES = (
    "fbt::: { speculate((int)arg0); trace((int)arg1); } fbt::: { commit((int)arg0); } fbt::: { trace((int)arg0); }"
)


def test_a_commit_that_frees_at_once_shows_what_its_cpu_has_speculated() -> None:
    guest = _FromGuest(SPECULATES)
    record = guest.record
    assert guest.shown(
        *(record(0, 1, 0, 1, 11), record(0, 3, 1, -1), record(0, 5, 0, 1, 12), record(0, 6, 1, -1)),
        *(record(1, 2, 2, 70), record(1, 4, 2, 71)),
    ) == [(1, 70), (0, 11), (1, 71), (0, 12)]
    assert guest.released == []


def test_the_next_use_of_a_number_is_kept_apart() -> None:
    """CPU 1 has it after CPU 0, and CPU 0's ring was read before that."""
    guest = _FromGuest(SPECULATES)
    record = guest.record
    assert guest.shown(record(0, 1, 0, 1, 11), record(1, 5, 0, 1, 21)) == []
    assert guest.shown(record(0, 2, 1, -1)) == [(0, 11)]
    assert guest.shown(record(1, 7, 1, -1)) == [(1, 21)]


def test_a_commit_of_several_cpus_waits_for_one_more_reading() -> None:
    guest = _FromGuest(SPECULATES)
    record = guest.record
    assert guest.shown(record(0, 1, 0, 1, 11), record(0, 4, 1, 1), record(0, 5, 1, 0)) == []
    assert guest.released == []
    assert guest.shown(record(1, 2, 0, 1, 21), record(1, 3, 2, 70)) == [(1, 70), (0, 11), (1, 21)]
    assert guest.released == [1]


def test_a_full_buffer_drops_or_ends_or_forgets() -> None:
    made = program(*(clause(i, "BEGIN", [acts.TraceAction(0)], [i]) for i in range(5)))
    out, messages, _ = run(made, Options(quiet=True, bufsize=64))
    assert (out, messages) == ("01\n", "probekit: 3 drops on CPU 0\n")
    assert run(made, Options(quiet=True, bufsize=64, bufpolicy="fill"))[:2] == ("01\n", "")
    assert run(made, Options(quiet=True, bufsize=64, bufpolicy="ring"))[:2] == ("34\n", "")


def test_a_record_that_never_fits_is_an_error() -> None:
    with pytest.raises(ProbekitError, match="Enabling exceeds size of buffer"):
        run(program(clause(0, "BEGIN", [acts.TraceAction(0)], [b"x"])), Options(bufsize=64))


def test_setopt_changes_what_comes_after() -> None:
    made = program(
        clause(0, "BEGIN", [acts.Setopt(0), say("a")], [b"quiet"]),
        clause(1, "BEGIN", [say("b\n"), acts.Setopt(0, 1)], [b"bufsize", b"4m"]),
    )
    out, messages, _ = run(made, Options())
    assert out.splitlines()[1:] == ["  0      1                           :BEGIN ab", ""]
    assert messages == (
        "probekit: script matched 1 probe\n"
        'probekit: couldn\'t set option "bufsize" to "4m": Option cannot be set while tracing is active\n'
    )


def test_what_is_printed_in_bulk_is_what_each_prints() -> None:
    script = """
        BEGIN { printf("%s %5d|", probename, 1); }
        BEGIN { printf("%d%%\\n", 2); printf("%-6s|", "ab"); }
        BEGIN { trace(3); trace("x"); }
        BEGIN { printf("%x\\n", -4); }
        BEGIN { setopt("quiet", "no"); }
        BEGIN { printf("loud %d\\n", 5); }
        BEGIN { setopt("quiet", "yes"); }
        BEGIN { printf("%d\\n", 1 / (int)(execname == "nobody")); }
        tick-10ms { printf("%d\\n", 6); exit(7); }
        tick-10ms { printf("never\\n"); }
        END { printf("end\\n"); }
    """
    made = compile_program(script)
    texts: list[str] = []
    outputs = [run(made)[:2], run(made, sink=texts)[:2]]
    assert outputs[0] == outputs[1]
    assert "".join(texts) == "BEGIN     1|2%\nab    |fffffffc\n"


GUEST_SITE = 9


def recorded(number: int, time: int) -> tuple[int, RawRecord]:
    return 0, RawRecord(0, time, GUEST_SITE, 0, number.to_bytes(8, "little"))


def drained(*records: tuple[int, RawRecord], until: int | None = None) -> Drained:
    return Drained(records, {}, {}, {}, complete_until=until)


def tracing() -> Run:
    """A run of a clause that prints its number, at a probe that the host does not have."""
    number = acts.Printf(parse_format("%d "), (0,))
    trace = Run(None, program(clause(0, "BEGIN", [number], [0])), Options(quiet=True))
    trace._stream.begin({GUEST_SITE: ProbeIdentity(77, ProbeName("fbt", "m", "f", "entry"))})
    return trace


def test_records_of_the_guest_wait_until_none_older_is_missing() -> None:
    stream = tracing()._stream
    assert printed(list(stream.of_guest(drained(recorded(3, 30), recorded(1, 10), until=20)))) == "1 "
    assert printed(list(stream.of_guest(drained(until=29)))) == ""
    assert printed(list(stream.of_guest(drained(recorded(2, 25), recorded(4, 40), until=30)))) == "2 3 "
    assert printed(list(stream.of_guest(drained(recorded(5, 35))))) == "5 4 ", "the last reading shows all"
    assert list(stream.of_held()) == []


def test_records_that_wait_when_the_host_exits_are_shown_and_those_read_later_are_not() -> None:
    trace = tracing()
    assert list(trace._stream.of_guest(drained(recorded(1, 10), until=0))) == []
    trace.state.call_exit()
    assert printed(list(trace._stream.of_held())) == "1 "
    assert list(trace._stream.of_guest(drained(recorded(2, 5)))) == []
    assert printed(list(trace._stream.of_guest(drained(recorded(3, 5)), last=True))) == "3 "


def test_records_that_wait_are_shown_before_an_error_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tracing()

    def fail() -> None:
        assert list(trace._stream.of_guest(drained(recorded(1, 10), until=0))) == []
        raise GuestError("the guest has died")

    monkeypatch.setattr(trace._host, "fire_due", fail)
    seen: list[Event] = []
    trace._host.sites.clear()
    with pytest.raises(GuestError), trace:
        for event in trace.events():
            trace._stream._reader.probes[GUEST_SITE] = ProbeIdentity(77, ProbeName("fbt", "m", "f", "entry"))  # type: ignore[index]
            seen.append(event)
    assert printed(seen).endswith("1 ")
