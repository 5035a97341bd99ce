"""Programs made by hand, one clause at a time, for runs without a guest."""

from __future__ import annotations

import io
from collections.abc import Sequence

from probekit.buffers.actions import Action, RecordPlan, field_layout
from probekit.buffers.aggs import AggPlan
from probekit.consumer.events import Event, Printed, ProbeFired
from probekit.ir import ops
from probekit.ir.ops import BasicBlock, Clause, Op, Program
from probekit.output.api import TextStyle
from probekit.output.effects import HostEffects
from probekit.output.text import TextRenderer
from probekit.probe.names import ProbeDescription
from probekit.session.options import Options
from probekit.session.run import Run

INT = (8, "int", "")


def clause(
    index: int, probe: str, actions: Sequence[Action] = (), fields: Sequence[int | bytes] = (), *before: Op
) -> Clause:
    """A clause that records constants."""
    items, emits = [], list(before)
    for number, value in enumerate(fields):
        reg = 100 + number
        if isinstance(value, int):
            items.append((8, "int", ""))
            emits.append(ops.Int(reg, value))
        else:
            items.append((64, "string", ""))
            emits.append(ops.Str(reg, value))
        emits.append(ops.Emit(number, reg))
    laid, size = field_layout(items)  # type: ignore[arg-type]
    return Clause(
        index=index,
        probes=(ProbeDescription.parse(probe),),
        blocks=(BasicBlock(tuple(emits), ops.Return()),),
        body=0,
        record=RecordPlan(laid, tuple(actions), size) if actions else None,
        registers=200,
        line=index + 1,
    )


def aggregate(agg: int, value: int | None = None) -> tuple[Op, ...]:
    """``@agg = f(value)``."""
    if value is None:
        return (ops.UpdateAgg(agg, (), None),)
    return (ops.Int(50, value), ops.UpdateAgg(agg, (), 50))


def program(*clauses: Clause, aggs: Sequence[AggPlan] = ()) -> Program:
    """The clauses, numbered as they come."""
    return Program(clauses=clauses, variables=(), aggregations=tuple(aggs))


class _Sink(TextRenderer):
    """A renderer that keeps the texts."""

    texts: list[str]

    def printed(self, text: str) -> None:
        self.texts.append(text)
        super().printed(text)


def run(made: Program, options: Options | None = None, *, sink: list[str] | None = None) -> tuple[str, str, Run]:
    """Run it as the command line does: output, messages, the trace. ``sink``: records are printed in bulk, and here."""
    options = options or Options(quiet=True)
    out, messages = io.StringIO(), io.StringIO()
    style = TextStyle(quiet=options.quiet, flow=options.flowindent, escape=sink is None)
    renderer = _Sink(out, messages, style, effects=HostEffects(out))
    with Run(None, made, options) as trace:
        if sink is not None:
            renderer.texts = sink
            trace.state.set_output(sink=renderer)
        for event in trace.events():
            renderer.event(event)
        renderer.aggregations(trace.unprinted())
    return out.getvalue(), messages.getvalue(), trace


def printed(events: Sequence[Event]) -> str:
    """What ``printf()`` printed."""
    return "".join(
        item.text
        for event in events
        if isinstance(event, ProbeFired)
        for item in event.items
        if isinstance(item, Printed)
    )
