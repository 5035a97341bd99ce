"""A reader made for one plan says what the general one says, whatever the payload."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers import actions as acts
from probekit.buffers.actions import FieldKind, RecordPlan, field_layout
from probekit.buffers.formats import parse_format
from probekit.buffers.layout import RawRecord
from probekit.consumer.events import ProbeIdentity
from probekit.consumer.plan_readers import bulk_printer, plan_reader
from probekit.consumer.record_events import Decoded, decode_record
from probekit.probe.names import ProbeName

PROBE = ProbeIdentity(7, ProbeName("fbt", "vmlinux", "f%d", "entry"))

_kinds = st.one_of(
    st.tuples(st.sampled_from((1, 2, 4, 8)), st.sampled_from(("int", "uint")), st.just("")),
    st.tuples(st.sampled_from((1, 16, 256)), st.just("string"), st.just("")),
    st.tuples(st.just(0), st.just("probe"), st.sampled_from(("probefunc", "probename"))),
)
_flags = st.sampled_from(("", "", "-", "0", "-0", "0-"))
_widths = st.sampled_from(("", "", "1", "8", "30"))
_between = st.text("a %\n{}", max_size=4).map(lambda text: text.replace("%", "%%"))


@st.composite
def plans(draw: st.DrawFn) -> RecordPlan:
    items: list[tuple[int, FieldKind, str]] = draw(st.lists(_kinds, min_size=1, max_size=5))  # type: ignore[arg-type]
    actions: list[acts.Action] = []
    number = 0
    while number < len(items):
        count = draw(st.integers(0, len(items) - number))
        if not count:
            actions.append(acts.TraceAction(number))
            number += 1
            continue
        text = draw(_between)
        for _, kind, _ in items[number : number + count]:
            integer = kind in ("int", "uint")
            flags = draw(_flags) if integer else draw(st.sampled_from(("", "-")))
            text += f"%{flags}{draw(_widths)}{draw(st.sampled_from('diuoxXp')) if integer else 's'}{draw(_between)}"
        actions.append(acts.Printf(parse_format(text), tuple(range(number, number + count))))
        number += count
    fields, size = field_layout(items)
    return RecordPlan(fields, tuple(actions), size)


@settings(max_examples=300)
@given(plans(), st.data())
def test_it_equals_the_general_reader(plan: RecordPlan, data: st.DataObject) -> None:
    payload = data.draw(st.binary(min_size=plan.size, max_size=plan.size))
    reader = plan_reader(plan)
    assert reader is not None
    slow = decode_record(plan, payload, probe=PROBE)
    assert isinstance(slow, Decoded)
    assert reader(payload, PROBE) == slow.items


@pytest.mark.parametrize("text", ["%5.2d", "%*d", "%'d", "%#x", "%+d", "% d", "%c", "%a", "%Y", "%.3s", "%S"])
def test_what_needs_more_has_none(text: str) -> None:
    kind: FieldKind = "string" if text[-1] in "sS" else "int"
    fields, size = field_layout([(8, kind, ""), (8, "int", "")])
    assert plan_reader(RecordPlan(fields, (acts.Printf(parse_format(text), (0, 1)),), size)) is None


def test_other_actions_have_none() -> None:
    fields, size = field_layout([(8, "int", ""), (8, "uint", "sym"), (16, "bytes", ""), (16, "stack", "")])
    for action in (acts.Exit(0), acts.SymbolAction("sym", 1), acts.TraceAction(1), acts.Tracemem(2), acts.Stack(3)):
        assert plan_reader(RecordPlan(fields, (action,), size)) is None


def test_an_example() -> None:
    fields, size = field_layout([(4, "int", ""), (16, "string", ""), (8, "int", "")])
    reader = plan_reader(RecordPlan(fields, (acts.Printf(parse_format("%d %s %x\n"), (0, 1, 2)),), size))
    assert reader is not None
    (printed,) = reader(struct.pack("<i4x16sq", -5, b"sh\0junk", -1), PROBE)
    assert getattr(printed, "text", "") == "-5 sh ffffffffffffffff\n"


@settings(max_examples=200)
@given(plans(), st.data())
def test_printed_in_bulk_is_what_each_prints(plan: RecordPlan, data: st.DataObject) -> None:
    payloads = data.draw(st.lists(st.binary(min_size=plan.size, max_size=plan.size), max_size=4))
    printer = bulk_printer(plan)
    if any(isinstance(action, acts.TraceAction) for action in plan.actions):
        assert printer is None
        return
    assert printer is not None
    slow = [decode_record(plan, payload, probe=PROBE) for payload in payloads]
    texts = [getattr(item, "text", "") for done in slow if isinstance(done, Decoded) for item in done.items]
    records = [(n, RawRecord(0, n, 5, 0, payload)) for n, payload in enumerate(payloads)]
    assert printer(records, {5: PROBE}) == "".join(texts)
