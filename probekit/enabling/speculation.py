"""Keep speculative records until ``commit()`` or ``discard()`` (DTrace guide, chapter "Speculative Tracing").

acquire() -> 1    speculate(1, record)    commit(1) -> [record], and 1 may be acquired again
acquire() with none free -> 0, counted

Clauses in a guest acquire and end speculations as well. Then words in guest memory say who has speculated
(:class:`SharedNumbers`). As in DTrace, each CPU has a buffer of its own for each speculation; the host's own probes
have one too. A speculation that ends where all its records are is free at once. Any other waits for one more reading of
the guest's buffers: by then every record that was speculated before the end has been read, from whatever CPU.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from probekit.buffers.layout import RECORD_HEADER, RawRecord
from probekit.records import fresh, mutable_record

__all__ = ("CpuRecord", "Ending", "SharedNumbers", "Speculations")

CpuRecord = tuple[int, RawRecord]
"""A CPU's number and a record from that CPU."""

_HOST = -1  # in place of a CPU's number: what the host's own probes have speculated


class Ending(Enum):
    """What became of a speculation that a clause has ended."""

    NOTHING = auto()
    """It was not active."""
    AT_ONCE = auto()
    """It is free already: only who has ended it has speculated, or nobody."""
    LATER = auto()
    """It is free after one more reading of the guest's buffers."""


class SharedNumbers(Protocol):
    """Keeps in guest memory which speculations are free, active or ended, and who has speculated."""

    def acquire(self) -> int | None:
        """Take a free number, from 1. Returns 0 when all are active, None when some have ended and will be free."""
        ...

    def speculate(self, number: int) -> bool:
        """Note that the host's own probes have speculated. Returns False for a number that is not active."""
        ...

    def end(self, number: int) -> Ending:
        """Mark an active speculation as free, or as ended. Does nothing for any other."""
        ...

    def release(self, number: int) -> None:
        """Mark an ended speculation as free."""
        ...


@mutable_record
class _Buffer:
    """The records of one speculation from one CPU, or from the host's own probes."""

    records: list[CpuRecord] = fresh(list)
    used: int = 0


class Speculations:
    """Keeps the speculations of one program, and their records."""

    def __init__(self, count: int, size: int) -> None:
        """Make ``count`` speculations (option ``nspec``) of ``size`` bytes on each CPU (option ``specsize``)."""
        self._count = count
        self._size = size
        self._active: set[int] = set()  # without a guest that shares the numbers
        self._buffers: dict[tuple[int, int], _Buffer] = {}  # by number and CPU
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
        for number, _ in self._buffers:
            shared.speculate(number)
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
                self._active.add(number)
                return number
        self.unavailable += 1
        return 0

    def speculate(self, number: int, cpu: int, record: RawRecord) -> None:
        """Serve ``speculate()`` of the host's own probes: keep a record.

        A record for a speculation that is not active is lost, as in DTrace.
        """
        active = number in self._active if self._shared is None else self._shared.speculate(number)
        if active:
            self._hold((number, _HOST), (cpu, record))

    def hold(self, number: int, cpu: int, record: RawRecord) -> None:
        """Keep a record of the guest, whose clauses write records for active speculations only."""
        self._hold((number, cpu), (cpu, record))

    def _hold(self, place: tuple[int, int], item: CpuRecord) -> None:
        size = RECORD_HEADER.size + len(item[1].payload)
        used = self._buffers[place].used if place in self._buffers else 0
        if not 0 < place[0] <= self._count or used + size > self._size:
            self.drops += 1
            return
        buffer = self._buffers.setdefault(place, _Buffer())
        buffer.used += size
        buffer.records.append(item)

    def commit(self, number: int) -> list[CpuRecord]:
        """Serve ``commit()`` of the host's own probes. Returns the records, and frees the number.

        When a CPU of the guest has speculated too, the list is empty: :meth:`settle` returns the records, and frees the
        number.
        """
        return self._end(number, keep=True)

    def discard(self, number: int) -> None:
        """Serve ``discard()`` of the host's own probes: drop the records."""
        self._end(number, keep=False)

    def _end(self, number: int, *, keep: bool) -> list[CpuRecord]:
        if self._shared is None:
            ending = Ending.AT_ONCE if number in self._active else Ending.NOTHING
            self._active.discard(number)
        else:
            ending = self._shared.end(number)
        match ending:
            case Ending.AT_ONCE:
                return self.ended_at_once(number, _HOST, keep=keep)
            case Ending.LATER:
                self.ended(number, keep=keep)
        return []

    def ended_at_once(self, number: int, cpu: int, *, keep: bool) -> list[CpuRecord]:
        """Note that a speculation, for which only ``cpu`` had records, has ended and is free. Returns them if kept.

        Other CPUs may have records for the number already: those of its next use.
        """
        buffer = self._buffers.pop((number, cpu), None)
        return buffer.records if buffer is not None and keep else []

    def ended(self, number: int, *, keep: bool) -> None:
        """Note that a speculation has ended, by ``commit()`` (``keep``) or ``discard()``, and is to be freed."""
        self._ended_now.append((number, keep))

    def settle(self) -> list[CpuRecord]:
        """Return records of committed speculations, by time. Call it after each reading of the guest's buffers.

        Such a commit is carried out one reading late: its record may have been read before those of another CPU's ring
        that belong to the same speculation. So a speculation that has ended since the last call waits for the next one.
        Those that ended before the last call are returned, and become free.
        """
        found: list[CpuRecord] = []
        kept = dict(self._ended_before)
        for place in [place for place in self._buffers if place[0] in kept]:
            records = self._buffers.pop(place).records
            found += records if kept[place[0]] else []
        for number in kept:
            if self._shared is not None:
                self._shared.release(number)
        self._ended_before, self._ended_now = self._ended_now, []
        return sorted(found, key=lambda item: item[1].timestamp)
