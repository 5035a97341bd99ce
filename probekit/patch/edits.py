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
    "EditSet",
    "RevertReport",
    "TextMemory",
    "apply_edits",
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


class EditSet:
    """Edits made ready before the guest is stopped for them: checked, by address, and grouped for reading.

    A kernel's sites lie close together, so neighbours are read in one piece. ``edits``: by address.
    Raises :class:`ValueError` for a set that contradicts itself: lengths that differ, empty or overlapping edits.
    """

    __slots__ = ("_runs", "edits")

    def __init__(self, edits: Iterable[Edit]) -> None:
        self.edits: tuple[Edit, ...] = tuple(sorted(edits))
        # (start, end, first, last): the edits first..last-1 stand in these bytes
        self._runs: list[tuple[int, int, int, int]] = []
        begin = first = 0
        before = -1
        for place, edit in enumerate(self.edits):
            end = edit.addr + len(edit.old)
            if len(edit.old) != len(edit.new) or not edit.old:
                raise ValueError(f"edit at {edit.addr:#x}: {len(edit.old)} old bytes, {len(edit.new)} new bytes")
            if edit.addr < before:
                raise ValueError(f"edit at {edit.addr:#x} overlaps the edit before it")
            if place and (edit.addr - before > _GAP or end - begin > _RUN):
                self._runs.append((begin, before, first, place))
                begin, first = edit.addr, place
            elif not place:
                begin = edit.addr
            before = end
        if self.edits:
            self._runs.append((begin, before, first, len(self.edits)))

    def __len__(self) -> int:
        return len(self.edits)

    def read(self, target: TextMemory) -> list[bytes | None]:
        """What stands at every edit now, in order; None where nothing is mapped."""
        found: list[bytes | None] = []
        pieces = target.read_many([(start, end - start) for start, end, _, _ in self._runs])
        for (start, _, first, last), data in zip(self._runs, pieces, strict=True):
            members = self.edits[first:last]
            if data is None:  # something between the windows may be unmapped
                found += target.read_many([(edit.addr, len(edit.old)) for edit in members])
            else:
                found += [data[addr - start : addr - start + len(old)] for addr, old, _ in members]
        return found


_GAP = 512  # a small read of its own costs as much as this many bytes read along
_RUN = 1 << 16


def apply_edits(target: TextMemory, edits: EditSet | Iterable[Edit], journal: Callable[[Sequence[Edit]], None]) -> None:
    """Make all ``edits`` or none. The target is stopped; no vCPU is inside a window (:func:`rips_inside`).

    ``journal``: called once, after every old byte was verified and before any
    is changed; it must have the edits on disk when it returns.
    """
    edits = edits if isinstance(edits, EditSet) else EditSet(edits)
    _verify(edits, edits.read(target), [edit.old for edit in edits.edits])
    journal(edits.edits)
    try:
        target.write_many((edit.addr, edit.new) for edit in edits.edits)
        _verify(edits, edits.read(target), [edit.new for edit in edits.edits])
    except BaseException as error:  # Ctrl-C in the middle must not leave half of it either
        _undo(target, edits, error)
        raise


def _verify(edits: EditSet, found: Sequence[bytes | None], expected: Sequence[bytes]) -> None:
    if found == expected:  # one C-speed comparison for the usual case
        return
    for edit, want, have in zip(edits.edits, expected, found, strict=True):
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


def _undo(target: TextMemory, edits: EditSet, error: BaseException) -> None:
    # The first error is the one to report; a failing undo is noted on it, and the journal still has everything.
    try:
        report = revert_edits(target, edits)
    except ProbekitError as second:
        error.add_note(f"undoing the edits failed too: {second}")
        return
    if not report.clean:
        places = [addr for addr, _ in report.conflicts] + list(report.unreadable)
        error.add_note(f"not undone, as these bytes are not ours: {', '.join(map(hex, places[:8]))}")


def revert_edits(target: TextMemory, edits: EditSet | Iterable[Edit]) -> RevertReport:
    """Put the old bytes back wherever the new ones still stand. Safe to repeat; the target is stopped."""
    edits = edits if isinstance(edits, EditSet) else EditSet(edits)
    found = edits.read(target)
    ours, already, conflicts, unreadable = _sort_out(edits, found)
    target.write_many((edit.addr, edit.old) for edit in ours.edits)
    _verify(ours, ours.read(target), [edit.old for edit in ours.edits])
    return RevertReport(tuple(edit.addr for edit in ours.edits), tuple(already), tuple(conflicts), tuple(unreadable))


def _sort_out(
    edits: EditSet, found: Sequence[bytes | None]
) -> tuple[EditSet, list[int], list[tuple[int, bytes]], list[int]]:
    """What is still ours; and the addresses that are old already, somebody else's (with what is there), unmapped."""
    ours: list[Edit] = []
    already: list[int] = []
    conflicts: list[tuple[int, bytes]] = []
    unreadable: list[int] = []
    if found == [edit.new for edit in edits.edits]:  # the usual case, at C speed
        return edits, already, conflicts, unreadable
    for edit, have in zip(edits.edits, found, strict=True):
        if have == edit.old:
            already.append(edit.addr)
        elif have == edit.new:
            ours.append(edit)
        elif have is None:
            unreadable.append(edit.addr)
        else:
            conflicts.append((edit.addr, have))
    return EditSet(ours), already, conflicts, unreadable


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


def rips_inside(rips: Iterable[int], edits: EditSet) -> tuple[int, ...]:
    """Those instruction pointers that stand strictly inside a window, where a jump's middle would be executed.

    At a window's first byte a vCPU is safe: it has not begun the instruction.
    The caller lets the guest run a little and asks again.
    """
    inside: list[int] = []
    for rip in rips:
        place = bisect_left(edits.edits, rip, key=lambda edit: edit.addr) - 1  # the last that begins before rip
        if place >= 0 and rip < edits.edits[place].addr + len(edits.edits[place].old):
            inside.append(rip)
    return tuple(inside)
