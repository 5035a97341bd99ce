"""Computes the indentation of ``-F``: which firings indent the output, and which end the indentation.

    fbt::a:entry, fbt::b:entry, fbt::b:return, fbt::a:return   on one CPU
    ->  " -> a"   "   -> b"   "   <- b"   " <- a"

A probe is an entry or a return when its name is that word, or ends with it after a dash (``method-entry``). If one
probe has several clauses, only the first at an entry and the last at a return change the indentation. The last one is
only known from the next firing on that CPU, so this module works on batches of events.
"""

from __future__ import annotations

from collections.abc import Sequence

from probekit.consumer.events import Event, Flow, ProbeFired, ProbeIdentity
from probekit.records import replaced

__all__ = ("FlowTracker",)

_STEP = 2
_NO_FLOW = "| "
_ARROWS = {
    ("entry", False): " -> ",
    ("entry", True): " => ",
    ("return", False): " <- ",
    ("return", True): " <= ",
}


def _kind(probe: ProbeIdentity) -> str:
    """Return ``entry``, ``return`` or an empty string."""
    last = probe.name.name.rpartition("-")[2]
    return last if last in ("entry", "return") else ""


class FlowTracker:
    """Keeps the depth of each CPU from batch to batch."""

    def __init__(self) -> None:
        self._depth: dict[int, int] = {}
        self._last: dict[int, ProbeFired] = {}

    def annotate(self, events: Sequence[Event]) -> list[Event]:
        """Return the batch with ``flow`` set on each firing. The events of each CPU must be in order of time."""
        following: dict[int, ProbeFired] = {}
        after: list[ProbeFired | None] = []
        for event in reversed(events):
            if isinstance(event, ProbeFired):
                after.append(following.get(event.cpu))
                following[event.cpu] = event
        return [replaced(e, flow=self._draw(e, after.pop())) if isinstance(e, ProbeFired) else e for e in events]

    def _draw(self, fired: ProbeFired, following: ProbeFired | None) -> Flow:
        cpu, kind = fired.cpu, _kind(fired.probe)
        before = self._last.get(cpu)
        self._last[cpu] = fired
        depth = self._depth.get(cpu, 0)
        if not kind or _same_firing(fired, before if kind == "entry" else following):
            return Flow(indent=depth, prefix=_NO_FLOW, named=True)
        prefix = _ARROWS[kind, fired.probe.name.provider == "syscall"]
        if kind == "return":
            depth = max(depth - _STEP, 0)
        self._depth[cpu] = depth + _STEP if kind == "entry" else depth
        return Flow(indent=depth, prefix=prefix, named=False)


def _same_firing(fired: ProbeFired, other: ProbeFired | None) -> bool:
    """Return whether both are clauses of the same probe."""
    return other is not None and other.probe.id == fired.probe.id and other.clause != fired.clause
