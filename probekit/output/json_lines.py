"""Writes one JSON object on each line, for programs (``--json``).

    {"type": "probe", "cpu": 0, "id": 7, "probe": {"provider": "fbt", ...}, "timestamp": 12, "data": [4], "text": "..."}
    {"type": "aggregation", "name": "", "func": "count", "data": [{"key": ["bash"], "value": 4}]}
    {"type": "drop", "kind": "principal", "cpu": 0, "count": 12, "total": 12, "message": "12 drops on CPU 0"}

Everything is written to one stream in the order of events. Only ASCII is written, so a string from the guest can
neither break a line nor control a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from probekit.consumer import events as model
from probekit.consumer.events import (
    Aggregation,
    AggValue,
    Attached,
    Average,
    Costs,
    Drop,
    Event,
    ExitRequested,
    Fault,
    Histogram,
    KeyValue,
    Message,
    Printed,
    ProbeFired,
    Quantize,
    RecordItem,
    Stats,
    StdDev,
    divide,
)
from probekit.consumer.text.costs import aborted_text
from probekit.consumer.text.drops import drop_text
from probekit.consumer.text.faults import fault_name, fault_text
from probekit.consumer.text.printa import scaled
from probekit.consumer.text.quantize import labels, shown_buckets
from probekit.consumer.text.strings import spell_surrogates
from probekit.output.dump import typed_lines
from probekit.output.effects import Effects, NoEffects
from probekit.output.streams import TextStream
from probekit.probe.names import ProbeName

__all__ = ("Json", "JsonRenderer", "dump", "event_json", "frame_json", "probe_json", "value_json")

Json = dict[str, object]


class JsonRenderer:
    """Writes events as JSON lines."""

    def __init__(self, out: TextStream, *, effects: Effects | None = None) -> None:
        """Prepare. ``effects``: carries out ``system()``; by default commands are not run. Only ``run`` is used."""
        self._out = out
        self._effects = effects or NoEffects()

    def header(self) -> None:
        """Write nothing: the event ``attached`` is the first line."""

    def event(self, event: Event) -> None:
        """Write one event."""
        self._out.write(dump(event_json(event)))
        if isinstance(event, ProbeFired):
            for item in event.items:
                if isinstance(item, model.Command):
                    self._out.flush()
                    self._effects.run(item.text)

    def aggregations(self, aggregations: Sequence[Aggregation]) -> None:
        """Write one line for each aggregation."""
        for aggregation in aggregations:
            self.event(aggregation)

    def flush(self) -> None:
        """Flush what was written."""
        self._out.flush()

    def close(self) -> None:
        """Flush."""
        self._out.flush()


def dump(value: Json) -> str:
    """Return an object as one line. Lone surrogates, which JSON readers refuse, are spelled out."""
    return json.dumps(_clean(value)) + "\n"


def _clean(value: object) -> object:
    if isinstance(value, str):
        return spell_surrogates(value)
    if isinstance(value, dict):
        return {_clean(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    return value


def probe_json(name: ProbeName) -> Json:
    """Return the four parts of a probe's name."""
    return {"provider": name.provider, "module": name.module, "function": name.function, "name": name.name}


def event_json(event: Event) -> Json:
    """Return one event as an object. Fields that an event does not have are left out."""
    match event:
        case ProbeFired():
            return _fired(event)
        case Aggregation(name=name, func=func):
            rows = [_row(row.key, row.value, row.normal) for row in event.rows]
            return {"type": "aggregation", "name": name, "func": func, "data": rows}
        case Drop(kind=kind, cpu=cpu, count=count, total=total):
            drop = _known(type="drop", kind=kind, cpu=cpu, count=count, total=total, message=drop_text(event))
            probe = event.probe
            return drop if probe is None else drop | {"id": probe.id, "probe": probe_json(probe.name)}
        case Fault():
            return _fault(event)
        case ExitRequested(status=status):
            return {"type": "exit", "status": status}
        case Attached(what=what, probes=probes, refused=refused):
            return {"type": "attached", "probes": probes, "what": what, "refused": refused}
        case Message(text=text):
            return {"type": "message", "text": text}
        case Stats(values=values):
            return {"type": "stats", **values}
        case Costs():
            return _costs(event)
        case _:
            assert_never(event)


def _costs(costs: Costs) -> Json:
    return _known(
        type="costs",
        percent=round(costs.percent, 3),
        limit=costs.limit,
        message=aborted_text(costs) if costs.limit is not None else None,
        clauses=[{"clause": c.clause + 1, "firings": c.firings, "ns": round(c.ns)} for c in costs.clauses],
        entries=costs.entries,
        entries_ns=round(costs.entries_ns),
    )


def _known(**fields: object) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _fired(fired: ProbeFired) -> Json:
    printed = [item.text for item in fired.items if isinstance(item, Printed)]
    return _known(
        type="probe",
        cpu=fired.cpu,
        id=fired.probe.id,
        probe=probe_json(fired.probe.name),
        timestamp=fired.timestamp,
        data=list(_traced(fired.items)),
        text="".join(printed) if printed else None,
    )


def _traced(items: Iterable[RecordItem]) -> Iterator[object]:
    """Yield the recorded values in order. The output of ``printf()`` is left out: it is in ``text``."""
    for item in items:
        match item:
            case model.TraceInt(value=value):
                yield value
            case model.TraceString(text=text) | model.SymbolName(text=text):
                yield text
            case model.TraceBytes(data=data) | model.Dump(data=data):
                yield {"bytes": data.hex()}
            case model.StackFrames(frames=frames):
                yield {"stack-frames": [frame_json(frame) for frame in frames]}
            case model.TypedValue(addr=addr):
                yield _known(value="\n".join(typed_lines(item.type, item.data)), addr=addr)
            case model.Table():
                yield {"aggregation-data": list(_table(item)), "aggregation-name": list(item.names)}
            case model.Command(text=text):
                yield {"system": text}
            case model.Reopened(path=path):
                yield {"freopen": path}
            case model.Truncated():
                yield {"ftruncate": True}
            case model.OptionSet(name=name, value=value):
                yield {"setopt": name, "value": value}
            case model.Printed():
                pass
            case _:
                assert_never(item)


def frame_json(frame: str) -> Json:
    """Return the parts of a frame ``module`name+0x10``."""
    place, _, offset = frame.partition("+0x")
    module, tick, name = place.partition("`")
    if not tick:
        return {"symbol": frame}
    return {"symbol": frame, "module": module, "name": name, "offset": int(offset, 16) if offset else 0}


def _table(table: model.Table) -> Iterator[Json]:
    for row in table.rows:
        values = [value_json(v, n) for v, n in zip(row.values, row.normals, strict=True)]
        yield {"key": list(row.key), **values[0]} if len(values) == 1 else {"key": list(row.key), "values": values}


def _fault(fault: Fault) -> Json:
    return _known(
        type="fault",
        fault=fault_name(fault.kind),
        kind=fault.kind,
        cpu=fault.cpu,
        id=fault.probe.id,
        probe=probe_json(fault.probe.name),
        timestamp=fault.timestamp,
        value=fault.value,
        clause=fault.clause or None,
        where=fault.where or None,
        message=fault_text(fault),
    )


def _row(key: Sequence[KeyValue], value: AggValue, normal: int) -> Json:
    return {"key": list(key), **value_json(value, normal)}


def value_json(value: AggValue | None, normal: int) -> Json:
    """Return one value of an aggregation, divided by ``normal``."""
    match value:
        case None:
            return {"value": None}
        case int():
            return {"value": divide(value, normal)}
        case Average(total=total, count=count):
            return {"value": scaled(value, normal), "sum": total, "count": count}
        case StdDev(count=count, total=total):
            return {"value": value.value(normal), "sum": total, "count": count}
        case Quantize(buckets=counts) | Histogram(buckets=counts):
            names = labels(value)
            shown = (
                {"value": _bucket_label(names[i]), "count": divide(counts[i], normal)} for i in shown_buckets(value)
            )
            return {"buckets": list(shown)}
        case _:
            assert_never(value)


def _bucket_label(label: str) -> int | str:
    """Return a bucket's lowest value, or the label of one that has none: ``< 0``, ``>= 100``."""
    return label if label[0] in "<>" else int(label)
