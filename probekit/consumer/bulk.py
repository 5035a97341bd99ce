"""Records of clauses that do nothing but print, taken many at a time where nobody asks who has fired.

    printf("%d %s\\n", pid, execname)  fired 50,000 times, with -q   ->   one text, written once

A record goes its own way when anything about it is not as its plan says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Protocol, runtime_checkable

from probekit.buffers.layout import RawRecord
from probekit.consumer.quick import BulkPrinter, bulk_printer
from probekit.consumer.records import ReadProgram

__all__ = ("Bulk", "Sink")

_MOST = 8192  # records in one text: between two of them signs of life are given

Records = Sequence[tuple[int, RawRecord]]


@runtime_checkable
class Sink(Protocol):
    """Who writes texts."""

    @property
    def takes_text(self) -> bool:
        """Now only what is printed matters."""
        ...

    def printed(self, text: str) -> None:
        """Write it, behind all events so far."""
        ...


class Bulk:
    """The printers of one program."""

    def __init__(self, program: ReadProgram) -> None:
        self._program = program
        plans = ((n, clause.plan) for n, clause in enumerate(program.clauses) if clause.plan.shown)
        made = ((n, plan.size, bulk_printer(plan)) for n, plan in plans)
        self._printers = {n: (size, printer) for n, size, printer in made if printer is not None}

    def split(self, records: Records) -> Iterator[tuple[BulkPrinter | None, Records]]:
        """In order: records, and what prints them; None for those that go their own way."""
        if not self._printers:
            yield None, records
            return
        for printer, group in groupby(records, self._printer):
            while members := list(islice(group, _MOST)):
                yield printer, members

    def _printer(self, item: tuple[int, RawRecord]) -> BulkPrinter | None:
        clause, _, site, fault, payload = item[1]
        size, printer = self._printers.get(clause, (0, None))
        return printer if len(payload) == size and not fault and site in self._program.probes else None
