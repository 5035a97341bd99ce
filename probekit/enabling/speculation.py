"""Keep speculative records until ``commit()`` or ``discard()`` (DTrace guide, chapter "Speculative Tracing").

acquire() -> 1    hold(1, record)    commit(1) -> [record], and 1 may be acquired again
acquire() with none free -> 0, counted

Clauses in a guest acquire and end speculations as well. Then words in guest memory say
which are free (:class:`SharedNumbers`), and a committed speculation waits for one more
reading of the guest's buffers: by then every record that was speculated before the
commit has been read, from whatever CPU.
"""

from __future__ import annotations

from typing import Protocol

from probekit.buffers.layout import RECORD_HEADER, RawRecord
from probekit.records import fresh, mutable_record

__all__ = ("CpuRecord", "SharedNumbers", "Speculations")

CpuRecord = tuple[int, RawRecord]
"""A CPU's number and a record from that CPU."""


class SharedNumbers(Protocol):
    """Keeps in guest memory which speculations are free, active or ended."""

    def acquire(self) -> int | None:
        """Take a free number, from 1. Returns 0 when all are active, None when some have ended and will be free."""
        ...

    def end(self, number: int) -> bool:
        """Mark an active speculation as ended. Returns False, and does nothing, for any other."""
        ...

    def release(self, number: int) -> None:
        """Mark an ended speculation as free."""
        ...


@mutable_record
class _Buffer:
    """The records of one speculation that is active or has ended."""

    records: list[CpuRecord] = fresh(list)
    used: int = 0


class Speculations:
    """Keeps the speculations of one program, and their records."""

    def __init__(self, count: int, size: int) -> None:
        """Make ``count`` speculations (option ``nspec``) of ``size`` bytes each (option ``specsize``)."""
        self._count = count
        self._size = size
        self._active: dict[int, _Buffer] = {}
        self._shared: SharedNumbers | None = None
        self._ended_now: list[tuple[int, bool]] = []  # since the last reading: (number, whether it was committed)
        self._ended_before: list[tuple[int, bool]] = []  # before the last reading
        self.unavailable = 0
        """How often no speculation was free. Only grows."""
        self.busy = 0
        """How often no speculation was free, but some had ended and waited for a reading. Only grows."""
        self.drops = 0
        """Records that did not fit. Only grows."""

    def share(self, shared: SharedNumbers) -> None:
        """Share the numbers with a guest. Speculations that are active now stay active."""
        for _ in range(max(self._active, default=0)):
            shared.acquire()  # the lowest free one each time: 1, 2, ...
        for number in range(1, max(self._active, default=0)):
            if number not in self._active:
                shared.release(number)
        self._shared = shared

    def acquire(self) -> int:
        """Serve ``speculation()``. Returns the lowest free number, from 1, or 0 when none is free."""
        if self._shared is not None:
            number = self._shared.acquire()
            self.busy += number is None
            self.unavailable += number == 0
            return number or 0
        for number in range(1, self._count + 1):
            if number not in self._active:
                self._active[number] = _Buffer()
                return number
        self.unavailable += 1
        return 0

    def hold(self, number: int, cpu: int, record: RawRecord) -> None:
        """Serve ``speculate()``: keep a record. A record for a speculation that is not active is lost, as in DTrace."""
        buffer = self._active.get(number)
        if buffer is None:
            if self._shared is None:
                return
            buffer = self._active[number] = _Buffer()  # the guest writes records for active ones only
        size = RECORD_HEADER.size + len(record.payload)
        if buffer.used + size > self._size:
            self.drops += 1
            return
        buffer.used += size
        buffer.records.append((cpu, record))

    def commit(self, number: int) -> list[CpuRecord]:
        """Serve ``commit()``. Returns the records, and frees the number.

        When a guest shares the numbers the list is empty, and :meth:`settle` returns the records and frees the number.
        """
        return self._end(number, keep=True)

    def discard(self, number: int) -> None:
        """Serve ``discard()``: drop the records."""
        self._end(number, keep=False)

    def _end(self, number: int, *, keep: bool) -> list[CpuRecord]:
        if self._shared is not None:
            if self._shared.end(number):
                self.ended(number, keep=keep)
            return []
        buffer = self._active.pop(number, None)
        return buffer.records if buffer is not None and keep else []

    def ended(self, number: int, *, keep: bool) -> None:
        """Note that a speculation has ended, by ``commit()`` (``keep``) or ``discard()``."""
        self._ended_now.append((number, keep))

    def settle(self) -> list[CpuRecord]:
        """Return records of committed speculations, by time. Call it after each reading of the guest's buffers.

        A commit is carried out one reading late: its record may have been read before those of another CPU's ring that
        belong to the same speculation. So a speculation that has ended since the last call waits for the next one.
        Those that ended before the last call are returned, and become free.
        """
        found: list[CpuRecord] = []
        for number, keep in self._ended_before:
            buffer = self._active.pop(number, None)
            if buffer is not None and keep:
                found += buffer.records
            if self._shared is not None:
                self._shared.release(number)
        self._ended_before, self._ended_now = self._ended_now, []
        return sorted(found, key=lambda item: item[1].timestamp)
