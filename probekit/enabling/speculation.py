"""Speculations: records that wait for ``commit()`` or ``discard()``.

acquire() -> 1    hold(1, record)    commit(1) -> [record], and 1 may be acquired again
acquire() with none free -> 0, counted

Clauses in a guest acquire and end them as well. Then the guest's words say which is free
(:class:`SharedNumbers`), and what is committed waits for one more reading of the guest's
buffers: by then every record that was speculated before has come in, from whatever CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from probekit.buffers.layout import RECORD_HEADER, RawRecord

__all__ = ("CpuRecord", "SharedNumbers", "Speculations")

CpuRecord = tuple[int, RawRecord]


class SharedNumbers(Protocol):
    """Which speculations are free, active or ended, in a guest's memory."""

    def acquire(self) -> int | None:
        """A number that was free; 0: none is; None: none is, but some are ended and will be."""
        ...

    def end(self, number: int) -> bool:
        """An active one is ended now; False for any other."""
        ...

    def release(self, number: int) -> None:
        """An ended one is free again."""
        ...


@dataclass(slots=True)
class _Buffer:
    records: list[CpuRecord] = field(default_factory=list)
    used: int = 0


class Speculations:
    """``count``: the option ``nspec``; ``size``: ``specsize``, bytes of each.

    ``unavailable``: how often there was none; ``busy``: how often those that there were had not been seen to yet;
    ``drops``: records that did not fit. All only grow.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._active: dict[int, _Buffer] = {}
        self._shared: SharedNumbers | None = None
        self._ended: list[tuple[int, bool]] = []
        self._ripe: list[tuple[int, bool]] = []
        self.unavailable = 0
        self.busy = 0
        self.drops = 0

    def share(self, shared: SharedNumbers) -> None:
        """From now on a guest acquires and ends them as well; those that are active now stay so."""
        for _ in self._active:
            shared.acquire()
        self._shared = shared

    def acquire(self) -> int:
        """``speculation()``: the lowest free number, from 1; 0 when there is none."""
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
        """``speculate()``: keep a record; one for a speculation that is not active is lost, as in DTrace."""
        buffer = self._active.get(number)
        if buffer is None:
            if self._shared is None:
                return
            buffer = self._active[number] = _Buffer()  # the guest has seen to it that it is active
        size = RECORD_HEADER.size + len(record.payload)
        if buffer.used + size > self._size:
            self.drops += 1
            return
        buffer.used += size
        buffer.records.append((cpu, record))

    def commit(self, number: int) -> list[CpuRecord]:
        """``commit()``: what was held, here or by :meth:`settle`; the number is free again then."""
        return self._end(number, keep=True)

    def discard(self, number: int) -> None:
        """``discard()``."""
        self._end(number, keep=False)

    def _end(self, number: int, *, keep: bool) -> list[CpuRecord]:
        if self._shared is not None:
            if self._shared.end(number):
                self.ended(number, keep=keep)
            return []
        buffer = self._active.pop(number, None)
        return buffer.records if buffer is not None and keep else []

    def ended(self, number: int, *, keep: bool) -> None:
        """A clause in the guest has ended one. ``keep``: by ``commit()``."""
        self._ended.append((number, keep))

    def settle(self) -> list[CpuRecord]:
        """The guest's buffers have been read: what was committed before the reading before this one."""
        found: list[CpuRecord] = []
        for number, keep in self._ripe:
            buffer = self._active.pop(number, None)
            if buffer is not None and keep:
                found += buffer.records
            if self._shared is not None:
                self._shared.release(number)
        self._ripe, self._ended = self._ended, []
        return sorted(found, key=lambda item: item[1].timestamp)
