"""Prints the records of clauses that only print, many at a time, when no renderer needs to know the probe.

    printf("%d %s\\n", pid, execname)  fired 50,000 times, with -q   ->   a few texts, each written once

A record with a fault, of another size or of an unknown site is left to :mod:`probekit.consumer.record_events`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Protocol, runtime_checkable

from probekit.buffers.layout import RawRecord
from probekit.consumer.plan_readers import BulkPrinter, bulk_printer
from probekit.consumer.record_events import ReadProgram

__all__ = ("BulkSplitter", "CpuRecords", "TextSink")

_MAX_RECORDS = 8192  # records in one text; between two texts the guest's watchdog receives a heartbeat

CpuRecords = Sequence[tuple[int, RawRecord]]
"""``(cpu, record)``, in order."""


@runtime_checkable
class TextSink(Protocol):
    """Writes texts."""

    @property
    def takes_text(self) -> bool:
        """Whether, at this moment, only the text of a record is needed."""
        ...

    def printed(self, text: str) -> None:
        """Write the text, after all events so far."""
        ...


class BulkSplitter:
    """Finds the records of one program that can be printed in bulk."""

    def __init__(self, program: ReadProgram) -> None:
        self._program = program
        plans = ((n, clause.plan) for n, clause in enumerate(program.clauses) if clause.plan.shown)
        made = ((n, plan.size, bulk_printer(plan)) for n, plan in plans)
        self._printers = {n: (size, printer) for n, size, printer in made if printer is not None}

    def split(self, records: CpuRecords) -> Iterator[tuple[BulkPrinter | None, CpuRecords]]:
        """Yield all records in order, each group with its printer; None for a group that has no printer."""
        if not self._printers:
            yield None, records
            return
        for printer, group in groupby(records, self._printer):
            while members := list(islice(group, _MAX_RECORDS)):
                yield printer, members

    def _printer(self, item: tuple[int, RawRecord]) -> BulkPrinter | None:
        clause, _, site, fault, payload = item[1]
        size, printer = self._printers.get(clause, (0, None))
        return printer if len(payload) == size and not fault and site in self._program.probes else None
