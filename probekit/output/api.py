"""Defines what a renderer is: events in, text out.

The caller calls ``header`` once before the first event, ``event`` for each, ``aggregations`` with those that nothing
has printed when tracing ends, and ``close`` last. Errors of the streams (a closed pipe) pass through: the caller
knows whether they end the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from probekit.consumer.events import Aggregation, Event
from probekit.consumer.text.printf import STACK_INDENT
from probekit.consumer.text.strings import escape_controls
from probekit.records import record

__all__ = (
    "PROGRAM",
    "Renderer",
    "TextStyle",
)


PROGRAM = "probekit"
"""The name before every message, where dtrace writes its own."""


class Renderer(Protocol):
    """Writes events."""

    def header(self) -> None:
        """Note that tracing starts."""

    def event(self, event: Event) -> None:
        """Write one event."""

    def aggregations(self, aggregations: Sequence[Aggregation]) -> None:
        """Write the aggregations that nothing has printed; called once, at the end."""

    def flush(self) -> None:
        """Flush what was written."""

    def close(self) -> None:
        """Write what is still held back, and flush. The streams stay open."""


@record
class TextStyle:
    """How text is written."""

    quiet: bool = False
    """``-q``: write only what the script prints."""
    flow: bool = False
    """``-F``: indent by entries and returns."""
    escape: bool = True
    """Spell out control characters in text from the guest."""
    verbose: bool = False
    """``-v``: write what enabling and restoring took."""
    stack_indent: int = STACK_INDENT
    """The option ``stackindent``: columns before a frame."""
    raw_bytes: bool = False
    """The option ``rawbytes``: bytes are never shown as text."""
    zoom: bool = False
    """The option ``aggzoom``: the longest bar of a histogram fills its columns."""
    drop_tags: bool = False
    """The option ``droptags``: the kind of a drop stands before its message."""

    def guest(self, text: str) -> str:
        """Return text from the guest as it may be written."""
        return escape_controls(text) if self.escape else text
