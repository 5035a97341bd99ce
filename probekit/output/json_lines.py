"""``--json``: one JSON object a line, for programs.

    {"type": "probe", "cpu": 0, "id": 7, "probe": {"provider": "fbt", ...}, "timestamp": 12, "data": [4], "text": "..."}
    {"type": "aggregation", "name": "", "func": "count", "data": [{"key": ["bash"], "value": 4}]}
    {"type": "drop", "kind": "principal", "cpu": 0, "count": 12, "total": 12, "message": "12 drops on CPU 0"}

Everything goes to one stream in the order of events. Only ASCII is written:
what the guest put into a string can neither break a line nor drive a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO, assert_never

from probekit.buffers.quantize import bucket_value
from probekit.consumer.drops import drop_text
from probekit.consumer.events import (
    Aggregation,
    Attached,
    Average,
    Drop,
    Event,
    ExitRequested,
    Fault,
    Item,
    Message,
    Printed,
    ProbeFired,
    Quantize,
    Row,
    Stats,
    TraceInt,
    TraceString,
)
from probekit.consumer.faults import fault_name, fault_text
from probekit.output.histogram import divide, shown_buckets
from probekit.probe.names import ProbeName

__all__ = ("Json", "JsonRenderer", "dump", "event_json", "probe_json")

Json = dict[str, object]


class JsonRenderer:
    """Writes events as NDJSON."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def header(self) -> None:
        """Nothing: ``attached`` is the first line."""

    def event(self, event: Event) -> None:
        """Write one event."""
        self._out.write(dump(event_json(event)))

    def aggregations(self, aggregations: Sequence[Aggregation]) -> None:
        """Write one line for each."""
        for aggregation in aggregations:
            self.event(aggregation)

    def close(self) -> None:
        """Flush."""
        self._out.flush()


def dump(value: Json) -> str:
    """One line. Lone surrogates, which no JSON reader likes, are spelled out."""
    return json.dumps(_clean(value)) + "\n"


def _clean(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_clean(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    return value


def probe_json(name: ProbeName) -> Json:
    """A probe's four fields."""
    return {"provider": name.provider, "module": name.module, "function": name.function, "name": name.name}


def event_json(event: Event) -> Json:
    """One event as an object. Fields that an event does not have are left out."""
    match event:
        case ProbeFired():
            return _fired(event)
        case Aggregation(name=name, func=func, normal=normal):
            rows = [_row(row, normal) for row in event.rows]
            return {"type": "aggregation", "name": name, "func": func, "data": rows}
        case Drop(kind=kind, cpu=cpu, count=count, total=total):
            message = drop_text(event)
            return _known(type="drop", kind=kind, cpu=cpu, count=count, total=total, message=message)
        case Fault():
            return _fault(event)
        case ExitRequested(status=status):
            return {"type": "exit", "status": status}
        case Attached(what=what, probes=probes, refused=refused, seconds=seconds):
            return _known(type="attached", probes=probes, what=what, refused=refused, seconds=seconds)
        case Message(text=text, details=details):
            return {"type": "message", "text": text, **({"details": details} if details else {})}
        case Stats(values=values):
            return {"type": "stats", **values}
        case _:
            assert_never(event)


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
        epid=fired.epid,
        data=list(_traced(fired.items)),
        text="".join(printed) if printed else None,
    )


def _traced(items: Iterable[Item]) -> Iterator[int | str]:
    """What ``trace()`` recorded; ``printf()`` goes to ``text``."""
    for item in items:
        match item:
            case TraceInt(value=value):
                yield value
            case TraceString(text=text):
                yield text
            case Printed():
                pass
            case _:
                assert_never(item)


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


def _row(row: Row, normal: int) -> Json:
    key = list(row.key)
    match row.value:
        case int():
            return {"key": key, "value": divide(row.value, normal)}
        case Average(total=total, count=count):
            value = divide(divide(total, normal), count) if count else 0
            return {"key": key, "value": value, "sum": total, "count": count}
        case Quantize(buckets=counts):
            buckets = [{"value": bucket_value(i), "count": divide(counts[i], normal)} for i in shown_buckets(counts)]
            return {"key": key, "buckets": buckets}
        case _:
            assert_never(row.value)
