"""Editing guest text: verify the old bytes, journal, write, read back; and the way back.

An :class:`Edit` is (address, old bytes, new bytes). The order of
:func:`apply_edits` is the whole point::

    read every old  ->  any differs: ConflictError, nothing written
    journal         ->  any failure: JournalError, nothing written
    write every new ->  any failure: what was written is undone, then the error goes on
    read every new  ->  any differs: the same

:func:`revert_edits` restores only what is still ours, and says what is not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from probekit.errors import ConflictError, MemoryAccessError, ProbekitError

__all__ = (
    "Edit",
    "RevertReport",
    "TextMemory",
    "apply_edits",
    "check_edits",
    "revert_batches",
    "revert_edits",
    "rips_inside",
)


class TextMemory(Protocol):
    """The two calls that editing needs of a stopped machine; a :class:`probekit.target.api.Target` has them."""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]: ...

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None: ...


class Edit(NamedTuple):
    """Bytes to replace at ``addr``; ``old`` and ``new`` are equally long. A tuple: there are 90,000 of them."""

    addr: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class RevertReport:
    """What :func:`revert_edits` did, by address.

    ``restored``: was ours, is the old bytes again. ``already``: had the old
    bytes. ``conflicts``: (address, found) of bytes that are neither, and were
    left alone. ``unreadable``: not mapped any more.
    """

    restored: tuple[int, ...]
    already: tuple[int, ...]
    conflicts: tuple[tuple[int, bytes], ...]
    unreadable: tuple[int, ...]

    @property
    def clean(self) -> bool:
        """True when every edited place holds its old bytes now."""
        return not self.conflicts and not self.unreadable


def check_edits(edits: Iterable[Edit]) -> None:
    """Refuse a set that contradicts itself: lengths that differ, empty or overlapping edits."""
    end = -1
    for edit in sorted(edits):
        if len(edit.old) != len(edit.new) or not edit.old:
            raise ValueError(f"edit at {edit.addr:#x}: {len(edit.old)} old bytes, {len(edit.new)} new bytes")
        if edit.addr < end:
            raise ValueError(f"edit at {edit.addr:#x} overlaps the edit before it")
        end = edit.addr + len(edit.old)


def apply_edits(target: TextMemory, edits: Sequence[Edit], journal: Callable[[Sequence[Edit]], None]) -> None:
    """Make all ``edits`` or none. The target is stopped; no vCPU is inside a window (:func:`rips_inside`).

    ``journal``: called once, after every old byte was verified and before any
    is changed; it must have the edits on disk when it returns.
    """
    check_edits(edits)
    _verify(target, edits, [edit.old for edit in edits])
    journal(edits)
    try:
        target.write_many((edit.addr, edit.new) for edit in edits)
        _verify(target, edits, [edit.new for edit in edits])
    except BaseException as error:  # Ctrl-C in the middle must not leave half of it either
        _undo(target, edits, error)
        raise


_GAP = 512  # a small read of its own costs as much as this many bytes read along
_RUN = 1 << 16


def _read_windows(target: TextMemory, edits: Sequence[Edit]) -> list[bytes | None]:
    """What stands at every edit now. Neighbours are read together: all of a kernel's sites in 0.3 s, not in 1."""
    order = sorted(range(len(edits)), key=lambda place: edits[place].addr)
    runs: list[tuple[int, int]] = []  # (addr, end)
    members: list[list[int]] = []
    for place in order:
        addr, end = edits[place].addr, edits[place].addr + len(edits[place].old)
        if runs and addr - runs[-1][1] <= _GAP and end - runs[-1][0] <= _RUN:
            runs[-1] = (runs[-1][0], max(end, runs[-1][1]))
            members[-1].append(place)
        else:
            runs.append((addr, end))
            members.append([place])
    found: list[bytes | None] = [None] * len(edits)
    alone: list[int] = []
    for (start, _), places, data in zip(
        runs, members, target.read_many([(start, end - start) for start, end in runs]), strict=True
    ):
        if data is None:
            alone += places  # something between the windows may be unmapped
            continue
        for place in places:
            offset = edits[place].addr - start
            found[place] = data[offset : offset + len(edits[place].old)]
    windows = target.read_many([(edits[place].addr, len(edits[place].old)) for place in alone])
    for place, window in zip(alone, windows, strict=True):
        found[place] = window
    return found


def _verify(target: TextMemory, edits: Sequence[Edit], expected: Sequence[bytes]) -> None:
    found = _read_windows(target, edits)
    if found == expected:  # one C-speed comparison for the usual case
        return
    for edit, want, have in zip(edits, expected, found, strict=True):
        if have is None:
            raise MemoryAccessError(f"cannot read {edit.addr:#x}", addr=edit.addr, size=len(edit.old))
        if have != want:
            raise ConflictError(
                f"{edit.addr:#x} holds {have.hex(' ')}, not {want.hex(' ')}",
                addr=edit.addr,
                expected=want,
                found=have,
                hint="something else changes this text: the guest's own ftrace or kprobes, or another tracer",
            )


def _undo(target: TextMemory, edits: Sequence[Edit], error: BaseException) -> None:
    # The first error is the one to report; a failing undo is noted on it, and the journal still has everything.
    try:
        report = revert_edits(target, edits)
    except ProbekitError as second:
        error.add_note(f"undoing the edits failed too: {second}")
        return
    if not report.clean:
        places = [addr for addr, _ in report.conflicts] + list(report.unreadable)
        error.add_note(f"not undone, as these bytes are not ours: {', '.join(map(hex, places[:8]))}")


def revert_edits(target: TextMemory, edits: Sequence[Edit]) -> RevertReport:
    """Put the old bytes back wherever the new ones still stand. Safe to repeat; the target is stopped."""
    found = _read_windows(target, edits)
    ours: list[Edit] = []
    already: list[int] = []
    conflicts: list[tuple[int, bytes]] = []
    unreadable: list[int] = []
    for edit, have in zip(edits, found, strict=True):
        if have == edit.old:
            already.append(edit.addr)
        elif have == edit.new:
            ours.append(edit)
        elif have is None:
            unreadable.append(edit.addr)
        else:
            conflicts.append((edit.addr, have))
    target.write_many((edit.addr, edit.old) for edit in ours)
    _verify(target, ours, [edit.old for edit in ours])
    return RevertReport(tuple(edit.addr for edit in ours), tuple(already), tuple(conflicts), tuple(unreadable))


def revert_batches(target: TextMemory, batches: Sequence[Sequence[Edit]]) -> RevertReport:
    """Undo several batches, newest first, so that an edit of an edited place is undone through both."""
    restored: list[int] = []
    already: list[int] = []
    conflicts: dict[int, bytes] = {}
    unreadable: list[int] = []
    for batch in reversed(batches):
        report = revert_edits(target, batch)
        restored += report.restored
        already += report.already
        unreadable += report.unreadable
        # What a newer edit does not know may be what an older one expects: the newer was never made.
        for addr in (*report.restored, *report.already):
            conflicts.pop(addr, None)
        conflicts.update(report.conflicts)
    return RevertReport(tuple(restored), tuple(already), tuple(conflicts.items()), tuple(unreadable))


def rips_inside(rips: Iterable[int], edits: Sequence[Edit]) -> tuple[int, ...]:
    """Those instruction pointers that stand strictly inside a window, where a jump's middle would be executed.

    At a window's first byte a vCPU is safe: it has not begun the instruction.
    The caller lets the guest run a little and asks again.
    """
    windows = sorted((edit.addr, edit.addr + len(edit.old)) for edit in edits)
    starts = [start for start, _ in windows]
    inside: list[int] = []
    for rip in rips:
        index = bisect_left(starts, rip) - 1  # the last window that begins before rip
        if index >= 0 and rip < windows[index][1]:
            inside.append(rip)
    return tuple(inside)
