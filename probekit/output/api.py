"""Defines the protocol of a renderer, which turns events into text, and the style of text.

The caller calls ``header`` once before the first event, and ``event`` for each event. When tracing ends it calls
``aggregations`` with those that no ``printa()`` has shown, and ``close`` last. The streams of the command line never
raise (:mod:`.streams`). Errors of other streams are not caught here.
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
"""The name at the start of every message, where dtrace writes its own name."""


class Renderer(Protocol):
    """Writes events."""

    def header(self) -> None:
        """Note that tracing begins."""

    def event(self, event: Event) -> None:
        """Write one event."""

    def aggregations(self, aggregations: Sequence[Aggregation]) -> None:
        """Write the aggregations that no ``printa()`` has shown. Called once, at the end."""

    def flush(self) -> None:
        """Flush what was written."""

    def close(self) -> None:
        """Write all remaining text, and flush. The streams stay open."""


@record
class TextStyle:
    """The options for writing text."""

    quiet: bool = False
    """Whether to write only the output of the script (``-q``)."""
    flow: bool = False
    """Whether to indent by entries and returns (``-F``)."""
    escape: bool = True
    """Whether to spell out control characters in text from the guest."""
    verbose: bool = False
    """Whether to write statistics of enabling and restoring (``-v``)."""
    stack_indent: int = STACK_INDENT
    """The number of columns before a frame (option ``stackindent``)."""
    raw_bytes: bool = False
    """Whether ``trace()`` and keys show strings and bytes in hexadecimal (option ``rawbytes``)."""
    string_size: int = 256
    """Bytes of a string that is shown in hexadecimal (option ``strsize``)."""
    zoom: bool = False
    """Whether the longest bar of a histogram fills its columns (option ``aggzoom``)."""
    drop_tags: bool = False
    """Whether the kind of a drop comes before its message (option ``droptags``)."""

    def guest(self, text: str) -> str:
        """Return text from the guest, with control characters escaped if :attr:`escape` is set."""
        return escape_controls(text) if self.escape else text
