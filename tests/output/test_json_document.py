"""``-x oformat=json``: one document, whatever happens."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.print_types import PrintInt
from probekit.consumer.events import (
    Aggregation,
    Average,
    Command,
    Costs,
    Drop,
    Dump,
    Event,
    ExitRequested,
    Fault,
    GuestText,
    JoinedRow,
    KeyKind,
    Message,
    OptionSet,
    Printed,
    Reopened,
    Row,
    StackFrames,
    Stats,
    SymbolName,
    Table,
    TraceBytes,
    TraceInt,
    TraceString,
    Truncated,
    TypedValue,
)
from probekit.output.effects import NoEffects
from probekit.output.json_document import JsonDocument

from .samples import BEGIN, fired, quantized

DTRACE = {"provider": "dtrace", "module": "", "function": "", "name": "BEGIN"}
INTERNAL = {"provider": "dtrace", "module": "INTERNAL", "function": "INTERNAL"}


def _document(*events: Event, left: tuple[Aggregation, ...] = ()) -> list[dict[str, Any]]:
    """The elements of the document that these events make."""
    out = io.StringIO()
    writer = JsonDocument(out)
    writer.header()
    for event in events:
        writer.event(event)
    writer.aggregations(left)
    writer.close()
    probes: list[dict[str, Any]] = json.loads(out.getvalue())["dtrace"]["probes"]
    return probes


def test_an_empty_run_is_a_document() -> None:
    assert _document() == []


def test_a_firing_with_all_that_a_record_can_hold() -> None:
    table = Table((KeyKind("string"),), (JoinedRow(("sh",), (4, None), (1, 1)),), ("a", "b"), ("count", "sum"))
    (element,) = _document(
        fired(
            *(TraceInt(5), TraceString("hi"), SymbolName("vmlinux`f"), TraceBytes(b"\1\2"), Dump(b"\3")),
            Printed(("a ", GuestText("b"))),
            StackFrames(("vmlinux`f+0x10",)),
            TypedValue(PrintInt("int", 32, signed=True), b"\7\0\0\0", 0x10),
            table,
            *(Command("ls"), Reopened("x"), Truncated(), OptionSet("quiet", "1")),
        )
    )
    assert {name: element[name] for name in ("cpu", "id", *DTRACE)} == {"cpu": 0, "id": BEGIN.id, **DTRACE}
    assert element["output"] == [
        *({"value": 5}, {"value": "hi"}, {"value": "vmlinux`f"}, {"bytes": "0102"}, {"bytes": "03"}),
        {"message": "a b"},
        {"stack-frames": [{"symbol": "vmlinux`f+0x10", "module": "vmlinux", "name": "f", "offset": 16}]},
        {"value": "(int)7", "address": 16},
        {
            "aggregation-data": [{"keys": ["sh"], "count": 4}, {"keys": ["sh"], "count": 0}],
            "aggregation-name": "a b",
        },
        *({"system": "ls"}, {"freopen": "x"}, {"ftruncate": True}, {"setopt": "quiet", "value": "1"}),
    ]


def test_drops_and_faults_are_probes_too() -> None:
    drop, whole, fault = _document(
        Drop("principal", 2, 3, 7), Drop("dynamic", None, 1, 1), Fault(BEGIN, 1, cpu=1, value=16, timestamp=9)
    )
    assert drop == {
        "cpu": 2,
        "count": 3,
        "total": 7,
        "kind": "principal",
        "msg": "3 drops on CPU 2",
        **(INTERNAL | {"name": "DROP"}),
    }
    assert whole["cpu"] == -1
    assert (fault["cpu"], fault["timestamp"], fault["id"], fault["name"]) == (1, 9, BEGIN.id, "FAULT")
    assert fault["fault"] == "invalid address" and "(0x10)" in fault["msg"]


def test_aggregations_at_the_end_are_one_element() -> None:
    counts = Aggregation("a", "count", (KeyKind("string"),), (Row(("sh",), 9, 3),))
    average = Aggregation("b", "avg", (), (Row((), Average(7, 2)),))
    shape = Aggregation("c", "quantize", (), (Row((), quantized(1)),))
    (element,) = _document(left=(counts, average, shape))
    assert [found["aggregation-name"] for found in element["output"]] == ["a", "b", "c"]
    assert [found["aggregation-data"][0].get("count") for found in element["output"]] == [3, 3, None]
    assert {"value": 1, "count": 1} in element["output"][2]["aggregation-data"][0]["buckets"]
    assert _document(counts)[0]["output"] == [element["output"][0]]


def test_what_belongs_to_no_probe_is_left_out() -> None:
    assert _document(Message("x"), Stats({"probes": 1}), Costs((), 0, 0.0, 0.0), ExitRequested(3)) == []


def test_commands_run_after_what_was_written_before_them() -> None:
    written: list[str] = []

    class _Effects(NoEffects):
        def run(self, command: str) -> None:
            written.append(f"{command}: {out.getvalue().count('hi')}")

    out = io.StringIO()
    JsonDocument(out, effects=_Effects()).event(fired(TraceString("hi"), Command("first"), Command("second")))
    assert written == ["first: 1", "second: 1"]


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_any_text_of_the_guest_makes_a_document(text: str) -> None:
    (element,) = _document(fired(TraceString(text), Printed((GuestText(text),))))
    assert len(element["output"]) == 2
