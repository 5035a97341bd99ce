"""Which records are printed in bulk, and which are read one by one."""

from __future__ import annotations

from probekit.buffers.actions import Exit, Printf, RecordPlan, TraceAction, field_layout
from probekit.buffers.formats import parse_format
from probekit.buffers.layout import RawRecord
from probekit.consumer.bulk import BulkSplitter
from probekit.consumer.events import ProbeIdentity
from probekit.consumer.record_events import ReadClause, ReadProgram
from probekit.probe.names import ProbeName

FIELDS, SIZE = field_layout([(8, "int", "")])
PRINTS = ReadClause(RecordPlan(FIELDS, (Printf(parse_format("%d\n"), (0,)),), SIZE))
PRINTS_TOO = ReadClause(RecordPlan(FIELDS, (Printf(parse_format("<%d>"), (0,)),), SIZE))
TRACES = ReadClause(RecordPlan(FIELDS, (TraceAction(0),), SIZE))
EXITS = ReadClause(RecordPlan(FIELDS, (Printf(parse_format("%d"), (0,)), Exit(0)), SIZE))
PROBES = {3: ProbeIdentity(1, ProbeName("fbt", "vmlinux", "f", "entry"))}


def _record(clause: int, value: int, *, site: int = 3, fault: int = 0, size: int = SIZE) -> tuple[int, RawRecord]:
    return 0, RawRecord(clause, value, site, fault, value.to_bytes(8, "little")[:size])


def _split(clauses: list[ReadClause], records: list[tuple[int, RawRecord]]) -> list[str | int]:
    """The text of each group, or of a group without a printer its size."""
    program = ReadProgram(clauses, PROBES)
    groups = BulkSplitter(program).split(records)
    return [len(members) if printer is None else printer(members, PROBES) for printer, members in groups]


def test_neighbours_of_one_clause_are_one_text() -> None:
    records = [_record(0, 1), _record(0, 2), _record(1, 3), _record(0, 4)]
    assert _split([PRINTS, PRINTS_TOO], records) == ["1\n2\n", "<3>", "4\n"]


def test_what_does_more_than_print_goes_its_own_way_in_its_place() -> None:
    records = [_record(0, 1), _record(1, 2), _record(2, 3), _record(0, 4)]
    assert _split([PRINTS, TRACES, EXITS], records) == ["1\n", 2, "4\n"]


def test_so_does_a_record_that_is_not_as_its_plan_says() -> None:
    records = [
        _record(0, 1),
        _record(0, 2, fault=1),
        _record(0, 3, site=9),
        _record(0, 4, size=7),
        _record(8, 5),
        _record(0, 6),
    ]
    assert _split([PRINTS], records) == ["1\n", 4, "6\n"]


def test_without_a_printing_clause_everything_is_one_group() -> None:
    assert _split([TRACES], [_record(0, 1), _record(0, 2)]) == [2]


def test_a_long_group_is_printed_in_parts() -> None:
    texts = _split([PRINTS], [_record(0, number) for number in range(20_000)])
    assert len(texts) == 3
    assert "".join(map(str, texts)) == "".join(f"{number}\n" for number in range(20_000))
