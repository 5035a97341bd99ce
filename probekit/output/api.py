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
from probekit.consumer.printf import STACK_INDENT
from probekit.consumer.strings import escape_controls
from probekit.records import record

__all__ = (
    "PROGRAM",
    "Renderer",
    "TextStyle",
)


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


@record
class TextStyle:
    """``quiet``: only what the script prints (``-q``); ``flow``: indented (``-F``); ``escape``: guest text defused.

    ``verbose``: figures of what enabling and restoring took (``-v``). ``stack_indent``, ``raw_bytes``, ``zoom``,
    ``drop_tags``: the options ``stackindent``, ``rawbytes``, ``aggzoom``, ``droptags``.
    """

    quiet: bool = False
    flow: bool = False
    escape: bool = True
    verbose: bool = False
    stack_indent: int = STACK_INDENT
    raw_bytes: bool = False
    zoom: bool = False
    drop_tags: bool = False

    def guest(self, text: str) -> str:
        """Text from the guest as it may be written."""
        return escape_controls(text) if self.escape else text
