"""Records: the fields, the actions, and payloads that lie."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.actions import Default, Exit, Printf, RecordField, RecordPlan, TraceAction, field_layout
from probekit.buffers.formats import Conversion, Format
from probekit.buffers.layout import RawRecord
from probekit.consumer.events import (
    ExitRequested,
    Fault,
    GuestText,
    Printed,
    ProbeFired,
    ProbeIdentity,
    TraceInt,
    TraceString,
)
from probekit.consumer.record_events import (
    Corrupt,
    Decoded,
    ReadClause,
    ReadProgram,
    decode_record,
    probe_field,
    record_events,
)
from probekit.probe.names import ProbeName

PROBE = ProbeIdentity(7, ProbeName("fbt", "vmlinux", "vfs_read", "entry"))


def decode_one(field: RecordField, payload: bytes) -> object:
    decoded = decode_record(RecordPlan((field,), (TraceAction(0),), 8), payload, probe=PROBE)
    assert isinstance(decoded, Decoded)
    return decoded.items[0]


def test_integers_take_their_width_and_sign_from_the_field() -> None:
    payload = b"\xff" * 8
    for size in (1, 2, 4, 8):
        assert decode_one(RecordField(0, size, "int"), payload) == TraceInt(-1, 8 * size, True)
        assert decode_one(RecordField(0, size, "uint"), payload) == TraceInt((1 << 8 * size) - 1, 8 * size, False)
    assert decode_one(RecordField(4, 2, "uint"), b"\0\0\0\0\x34\x12\0\0") == TraceInt(0x1234, 16, False)


def test_strings_end_at_the_first_nul_and_decode_whatever_they_hold() -> None:
    assert decode_one(RecordField(0, 8, "string"), b"bash\0xyz") == TraceString("bash")
    assert decode_one(RecordField(0, 8, "string"), b"full len") == TraceString("full len")
    assert decode_one(RecordField(0, 4, "string"), "é".encode() + b"\xff\0") == TraceString("é\udcff")
    assert decode_one(RecordField(0, 0, "string"), b"") == TraceString("")


def test_probe_fields_take_no_bytes() -> None:
    assert decode_one(RecordField(0, 0, "probe", "probefunc"), b"") == TraceString("vfs_read")
    parts = [probe_field(PROBE.name, d) for d in ("probeprov", "probemod", "probefunc", "probename")]
    assert parts == ["fbt", "vmlinux", "vfs_read", "entry"]
    assert probe_field(ProbeName("dtrace", "", "", "BEGIN"), "probefunc") == ""


def test_actions_come_out_in_order() -> None:
    fields, size = field_layout([(4, "int", ""), (8, "string", ""), (4, "int", "")])
    percent_d = Conversion(flags="", width=None, precision=None, length="", letter="d")
    percent_s = Conversion(flags="", width=None, precision=None, length="", letter="s")
    form = Format("%d %s", (percent_d, " ", percent_s))
    plan = RecordPlan(fields, (Printf(form, (0, 1)), TraceAction(1), Default(), Exit(2)), size)
    payload = b"\x05\0\0\0" + b"\0" * 4 + b"sh\0\0\0\0\0\0" + b"\xfe\xff\xff\xff"
    assert decode_record(plan, payload.ljust(size, b"\0"), probe=PROBE) == Decoded(
        (Printed(("5 ", GuestText("sh"))), TraceString("sh")), exit_status=-2
    )


def test_what_does_not_fit_is_corrupt() -> None:
    for field in (
        RecordField(8, 8, "int"),
        RecordField(0, 3, "int"),
        RecordField(1, 8, "int"),
        RecordField(-1, 1, "int"),
        RecordField(0, 99, "string"),
    ):
        assert isinstance(decode_record(RecordPlan((field,), (TraceAction(0),), 8), b"\0" * 8, probe=PROBE), Corrupt)
    assert isinstance(decode_record(RecordPlan((), (TraceAction(0),), 0), b"", probe=PROBE), Corrupt)


FIELDS = st.builds(
    RecordField,
    offset=st.integers(-8, 64),
    size=st.integers(-8, 64),
    kind=st.sampled_from(("int", "uint", "string", "probe")),
    detail=st.sampled_from(("", "probefunc", "nonsense")),
)
CONVERSIONS = st.builds(
    Conversion,
    flags=st.sampled_from(("", "#0", "-", "+ ", "0'")),
    width=st.none() | st.integers(0, 40),
    precision=st.none() | st.integers(0, 40),
    length=st.just(""),
    letter=st.sampled_from("diouxXpcCsSaAYTeq%"),
    star_width=st.booleans(),
    star_precision=st.booleans(),
)
FORMATS = st.builds(
    Format, text=st.just(""), parts=st.lists(st.sampled_from(("", "text\n")) | CONVERSIONS, max_size=5).map(tuple)
)
NUMBERS = st.integers(-1, 5)
ACTIONS = st.one_of(
    st.builds(TraceAction, field=NUMBERS),
    st.builds(Exit, field=NUMBERS),
    st.builds(Default),
    st.builds(Printf, format=FORMATS, fields=st.lists(NUMBERS, max_size=4).map(tuple)),
)
PLANS = st.builds(
    RecordPlan,
    fields=st.lists(FIELDS, max_size=5).map(tuple),
    actions=st.lists(ACTIONS, max_size=4).map(tuple),
    size=st.integers(0, 64),
)


@given(plan=PLANS, payload=st.binary(max_size=80))
def test_no_bytes_make_the_decoder_raise(plan: RecordPlan, payload: bytes) -> None:
    assert isinstance(decode_record(plan, payload, probe=PROBE), Decoded | Corrupt)


def program(plan: RecordPlan) -> ReadProgram:
    return ReadProgram(clauses=(ReadClause(plan, name="clause 1", where="line 1"),), probes={3: PROBE})


def raw(payload: bytes = b"", *, clause: int = 0, site: int = 3, fault: int = 0) -> RawRecord:
    return RawRecord(clause=clause, timestamp=99, site=site, fault=fault, payload=payload)


def test_a_record_becomes_a_firing_and_an_exit_request() -> None:
    plan = RecordPlan((RecordField(0, 4, "int"),), (TraceAction(0), Exit(0)), 8)
    events = record_events(program(plan), raw(b"\2\0\0\0\0\0\0\0"), cpu=1, timestamp=5)
    fired = ProbeFired(cpu=1, probe=PROBE, clause=0, timestamp=5, items=(TraceInt(2, 32, True),))
    assert events == [fired, ExitRequested(2)]


def test_a_clause_without_actions_leaves_no_line() -> None:
    assert record_events(program(RecordPlan((), (), 0)), raw(), cpu=0, timestamp=0) == []
    default = record_events(program(RecordPlan((), (Default(),), 0)), raw(), cpu=0, timestamp=0)
    assert default == [ProbeFired(cpu=0, probe=PROBE, clause=0, timestamp=0, items=())]


def test_a_fault_is_all_that_its_record_yields() -> None:
    plan = RecordPlan((RecordField(0, 8, "int"),), (TraceAction(0),), 8)
    fault = Fault(probe=PROBE, kind=1, cpu=2, value=16, clause="clause 1", where="line 1", timestamp=4)
    assert record_events(program(plan), raw(b"\x10" + b"\0" * 7, fault=1), cpu=2, timestamp=4) == [fault]
    bare = record_events(program(plan), raw(fault=4), cpu=2, timestamp=4)
    assert isinstance(bare, list)
    assert isinstance(bare[0], Fault)
    assert bare[0].value is None


def test_unknown_clauses_and_sites_are_corrupt() -> None:
    known = program(RecordPlan((), (), 0))
    assert isinstance(record_events(known, raw(clause=1), cpu=0, timestamp=0), Corrupt)
    assert isinstance(record_events(known, raw(site=4), cpu=0, timestamp=0), Corrupt)
