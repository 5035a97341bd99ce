"""Writes one JSON document, with the layout of FreeBSD's dtrace, for ``-x oformat=json``.

    {"dtrace": {"probes": [
    {"timestamp": 12, "cpu": 0, "id": 1, "provider": "dtrace", "module": "", "function": "", "name": "BEGIN",
     "output": [{"value": 5}, {"message": "hello"}]},
    {..., "output": [{"aggregation-data": [{"keys": ["sh"], "count": 4}], "aggregation-name": "a"}]}
    ]}}

Drops and faults are written as probes: ``dtrace:INTERNAL:INTERNAL:DROP`` and ``...:FAULT``. Each probe is written at
once, so that a reader need not wait for the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from probekit.consumer import events as model
from probekit.consumer.events import Aggregation, Drop, Event, Fault, ProbeFired, RecordItem
from probekit.consumer.text.drops import drop_text
from probekit.consumer.text.faults import fault_name, fault_text
from probekit.output.dump import typed_lines
from probekit.output.effects import Effects, NoEffects
from probekit.output.json_lines import Json, dump, frame_json, probe_json, value_json
from probekit.output.streams import TextStream
from probekit.probe.names import ProbeName

__all__ = ("JsonDocument",)

_HEAD = '{"dtrace": {"probes": ['
_TAIL = "\n]}}\n"


class JsonDocument:
    """Writes events as one document."""

    def __init__(self, out: TextStream, *, effects: Effects | None = None) -> None:
        """Prepare. ``effects``: carries out ``system()``; by default commands are not run."""
        self._out = out
        self._effects = effects or NoEffects()
        self._separator = "\n"

    def header(self) -> None:
        """Open the document."""
        self._out.write(_HEAD)

    def event(self, event: Event) -> None:
        """Write one event. Messages, statistics and costs are left out: this format has no form for them."""
        match event:
            case ProbeFired(probe=probe):
                fired = {"timestamp": event.timestamp, "cpu": event.cpu, "id": probe.id, **probe_json(probe.name)}
                self._add({**fired, "output": list(_output(event.items))})
                self._run_commands(event.items)
            case Drop(kind=kind, cpu=cpu, count=count, total=total):
                facts: Json = {"count": count, "total": total, "kind": kind, "msg": drop_text(event)}
                self._add({"cpu": -1 if cpu is None else cpu, **_internal("DROP"), **facts})
            case Fault(kind=number, cpu=cpu):
                facts = {"id": event.probe.id, "fault": fault_name(number), "msg": fault_text(event)}
                self._add(
                    {"timestamp": event.timestamp, "cpu": 0 if cpu is None else cpu, **_internal("FAULT"), **facts}
                )
            case Aggregation():
                self._add({"output": [_aggregation(event)]})
            case _:
                pass

    def aggregations(self, aggregations: Sequence[Aggregation]) -> None:
        """Write all of them as one element."""
        if aggregations:
            self._add({"output": [_aggregation(each) for each in aggregations]})

    def flush(self) -> None:
        """Flush what was written."""
        self._out.flush()

    def close(self) -> None:
        """Close the document."""
        self._out.write(_TAIL)
        self._out.flush()

    def _add(self, element: Json) -> None:
        self._out.write(self._separator + dump(element).rstrip("\n"))
        self._separator = ",\n"

    def _run_commands(self, items: Sequence[RecordItem]) -> None:
        for item in items:
            if isinstance(item, model.Command):
                self._out.flush()
                self._effects.run(item.text)


def _internal(name: str) -> Json:
    return probe_json(ProbeName("dtrace", "INTERNAL", "INTERNAL", name))


def _output(items: Sequence[RecordItem]) -> Iterator[Json]:
    for item in items:
        match item:
            case model.TraceInt(value=value):
                yield {"value": value}
            case model.TraceString(text=text) | model.SymbolName(text=text):
                yield {"value": text}
            case model.TraceBytes(data=data) | model.Dump(data=data):
                yield {"bytes": data.hex()}
            case model.Printed():
                yield {"message": item.text}
            case model.StackFrames(frames=frames):
                yield {"stack-frames": [frame_json(frame) for frame in frames]}
            case model.TypedValue(addr=addr):
                yield {"value": "\n".join(typed_lines(item.type, item.data)), "address": addr}
            case model.Table():
                rows = [
                    {"keys": list(row.key), **_counted(value, normal)}
                    for row in item.rows
                    for value, normal in zip(row.values, row.normals, strict=True)
                ]
                yield {"aggregation-data": rows, "aggregation-name": " ".join(item.names)}
            case model.Command(text=text):
                yield {"system": text}
            case model.Reopened(path=path):
                yield {"freopen": path}
            case model.Truncated():
                yield {"ftruncate": True}
            case model.OptionSet(name=name, value=value):
                yield {"setopt": name, "value": value}
            case _:
                assert_never(item)


def _aggregation(aggregation: Aggregation) -> Json:
    rows = [{"keys": list(row.key), **_counted(row.value, row.normal)} for row in aggregation.rows]
    return {"aggregation-data": rows, "aggregation-name": aggregation.name}


def _counted(value: model.AggValue | None, normal: int) -> Json:
    found = value_json(value, normal)
    return {"buckets": found["buckets"]} if "buckets" in found else {"count": found["value"] or 0}
