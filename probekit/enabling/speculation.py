"""Speculations: records that wait for ``commit()`` or ``discard()``.

acquire() -> 1    hold(1, record)    commit(1) -> [record], and 1 may be acquired again
acquire() with none free -> 0, counted
"""

from __future__ import annotations

from dataclasses import dataclass, field

from probekit.buffers.layout import RECORD_HEADER, RawRecord

__all__ = ("Speculations",)

Held = tuple[int, RawRecord]


@dataclass(slots=True)
class _Buffer:
    records: list[Held] = field(default_factory=list)
    used: int = 0


class Speculations:
    """``count``: the option ``nspec``; ``size``: ``specsize``, bytes of each.

    ``unavailable``: how often there was none; ``drops``: records that did not fit. Both only grow.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._active: dict[int, _Buffer] = {}
        self.unavailable = 0
        self.drops = 0

    def acquire(self) -> int:
        """``speculation()``: the lowest free number, from 1; 0 when there is none."""
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
            return
        size = RECORD_HEADER.size + len(record.payload)
        if buffer.used + size > self._size:
            self.drops += 1
            return
        buffer.used += size
        buffer.records.append((cpu, record))

    def commit(self, number: int) -> list[Held]:
        """``commit()``: what was held; the number is free again."""
        buffer = self._active.pop(number, None)
        return buffer.records if buffer is not None else []

    def discard(self, number: int) -> None:
        """``discard()``."""
        self._active.pop(number, None)
