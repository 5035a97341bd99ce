"""Tell until which time everything that the CPUs have recorded has been read.

A CPU puts its records into its ring in order of their time stamps, and only while its guard is taken. So after its
ring is read, these records can still be missing:

- its guard was free before: records of firings that begin later, so they are newer than all that was read before
- its guard was taken: the record that was being written. It is not older than the last one in the ring
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

__all__ = ("ReadTimes",)


class ReadTimes:
    """Remembers the newest records of all CPUs. Times are time stamps of the guest; all CPUs have the same clock."""

    def __init__(self, cpus: Sequence[int]) -> None:
        """Prepare. ``cpus``: the CPUs that have a ring."""
        self._newest = dict.fromkeys(cpus, 0)
        self.complete_until = 0
        """No record with this time stamp or an older one is missing."""

    def note(self, newest: Mapping[int, int], inside: Collection[int], *, paused: bool) -> int:
        """Note one reading of all rings. Returns :attr:`complete_until`.

        ``newest``: the time stamp of the newest record that was read, by CPU; a CPU whose ring was empty is missing.
        ``inside``: the CPUs whose guard was taken before the first ring was read. ``paused``: whether the guest stood
        still from the first ring to the last.
        """
        before = max(self._newest.values(), default=0)
        for cpu, time in newest.items():
            self._newest[cpu] = max(self._newest[cpu], time)
        settled = max(self._newest.values(), default=0) if paused else before
        times = (time if cpu in inside else max(time, settled) for cpu, time in self._newest.items())
        self.complete_until = max(self.complete_until, min(times, default=0))
        return self.complete_until
