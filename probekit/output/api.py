"""What a renderer is: events in, text out.

The session calls ``header`` once before the first event, ``event`` for each,
``aggregations`` with those that nothing has printed when tracing ends, and
``close`` last. Errors of the streams (a closed pipe) pass through: the caller
knows whether they end the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from probekit.consumer.events import Aggregation, Event

__all__ = ("PROGRAM", "Renderer")

PROGRAM = "probekit"
"""The name before every message, where dtrace writes its own."""


class Renderer(Protocol):
    """One way to write events."""

    def header(self) -> None:
        """Tracing starts."""

    def event(self, event: Event) -> None:
        """Write one event."""

    def aggregations(self, aggregations: Sequence[Aggregation]) -> None:
        """Write the aggregations that are left at the end."""

    def flush(self) -> None:
        """Let what was written be seen."""

    def close(self) -> None:
        """Write what is still held back, and flush. The streams stay open."""
