"""JSON, one object a line."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from probekit.consumer.events import (
    Aggregation,
    Attached,
    Average,
    Drop,
    Event,
    ExitRequested,
    Fault,
    GuestText,
    KeyKind,
    Message,
    Printed,
    ProbeIdentity,
    Row,
    TraceInt,
    TraceString,
)
from probekit.output.json_lines import JsonRenderer
from probekit.probe.names import ProbeName

from .samples import READ, fired, quantized

READ_NAME = {"provider": "fbt", "module": "vmlinux", "function": "vfs_read", "name": "entry"}


def lines(*events: Event) -> list[Any]:
    out = io.StringIO()
    renderer = JsonRenderer(out)
    renderer.header()
    for event in events:
        renderer.event(event)
    renderer.close()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_firing() -> None:
    items = (TraceInt(-4), TraceString("bash"), Printed(("x=", GuestText("1"), "\n")), Printed(("y",)))
    assert lines(fired(*items, probe=READ, cpu=2)) == [
        {
            "type": "probe",
            "cpu": 2,
            "id": 51234,
            "probe": READ_NAME,
            "timestamp": 123,
            "data": [-4, "bash"],
            "text": "x=1\ny",
        }
    ]


def test_a_firing_that_printed_nothing_has_no_text() -> None:
    assert "text" not in lines(fired())[0]
    assert lines(fired(Printed(())))[0]["text"] == ""


def test_aggregations() -> None:
    kinds = (KeyKind("string"), KeyKind("int"))
    assert lines(Aggregation("a", "count", kinds, (Row(("bash", 1), 4), Row(("init", 2), 9)))) == [
        {
            "type": "aggregation",
            "name": "a",
            "func": "count",
            "data": [{"key": ["bash", 1], "value": 4}, {"key": ["init", 2], "value": 9}],
        }
    ]
    assert lines(Aggregation("", "avg", (), (Row((), Average(7, 2)),)))[0]["data"] == [
        {"key": [], "value": 3, "sum": 7, "count": 2}
    ]
    assert lines(Aggregation("", "quantize", (), (Row((), quantized(1, 1)),)))[0]["data"] == [
        {"key": [], "buckets": [{"value": 0, "count": 0}, {"value": 1, "count": 2}, {"value": 2, "count": 0}]}
    ]
    assert lines(Aggregation("", "sum", (), (Row((), 10, 3),)))[0]["data"] == [{"key": [], "value": 3}]
    assert lines(Aggregation("", "sum", (), ()))[0]["data"] == []


def test_the_rest() -> None:
    assert lines(
        Attached("description 'x'", 3, refused=1),
        Drop("principal", 0, 12, 20),
        Drop("dynamic", None, 1, 1),
        Drop("missed", None, 5, 6, READ),
        Fault(READ, 1, cpu=0, value=16, clause="clause 1", where="line 2", timestamp=9),
        ExitRequested(3),
        Message("hello"),
    ) == [
        {"type": "attached", "probes": 3, "what": "description 'x'", "refused": 1},
        {
            "type": "drop",
            "kind": "principal",
            "cpu": 0,
            "count": 12,
            "total": 20,
            "message": "12 drops on CPU 0",
        },
        {"type": "drop", "kind": "dynamic", "count": 1, "total": 1, "message": "1 dynamic variable drop"},
        {
            "type": "drop",
            "kind": "missed",
            "count": 5,
            "total": 6,
            "id": 51234,
            "probe": READ_NAME,
            "message": "5 missed firings of fbt:vmlinux:vfs_read:entry",
        },
        {
            "type": "fault",
            "fault": "invalid address",
            "kind": 1,
            "cpu": 0,
            "id": 51234,
            "probe": READ_NAME,
            "timestamp": 9,
            "value": 16,
            "clause": "clause 1",
            "where": "line 2",
            "message": "error in clause 1 for probe ID 51234 (fbt:vmlinux:vfs_read:entry): "
            "invalid address (0x10) at line 2",
        },
        {"type": "exit", "status": 3},
        {"type": "message", "text": "hello"},
    ]


def test_aggregations_at_the_end_are_lines_like_the_others() -> None:
    out = io.StringIO()
    JsonRenderer(out).aggregations([Aggregation("a", "count", (), ()), Aggregation("b", "count", (), ())])
    assert [json.loads(line)["name"] for line in out.getvalue().splitlines()] == ["a", "b"]


@given(text=st.text(st.characters() | st.characters(categories=["Cs"])), value=st.integers())
def test_every_line_is_json_and_printable_ascii(text: str, value: int) -> None:
    out = io.StringIO()
    renderer = JsonRenderer(out)
    probe = ProbeIdentity(1, ProbeName(text, text, text, text))
    renderer.event(fired(TraceString(text), TraceInt(value), Printed((text, GuestText(text))), probe=probe))
    renderer.event(Aggregation(text, "count", (KeyKind("string"),), (Row((text,), value),)))
    renderer.event(Message(text))
    written = out.getvalue()
    assert written.count("\n") == 3
    assert all(" " <= c <= "~" for c in written.replace("\n", ""))
    clean = re.sub("[\udc80-\udcff]", lambda m: f"\\x{ord(m.group()) - 0xDC00:02x}", text)
    clean = clean.encode("utf-8", "backslashreplace").decode()
    assert json.loads(written.splitlines()[0])["data"] == [clean, value]
