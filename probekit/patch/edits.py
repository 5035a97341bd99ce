"""Edit guest text: verify the old bytes, journal, write, read back; and undo it.

An :class:`Edit` is (address, old bytes, new bytes). :func:`apply_edits` works in this order::

    read every old  ->  any differs: ConflictError, nothing written
    journal         ->  any failure: JournalError, nothing written
    write every new ->  any failure: what was written is undone, then the error goes on
    read every new  ->  any differs: the same

:func:`revert_edits` restores only what still has our bytes, and reports the rest.
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
    """Reads and writes the memory of a stopped machine; a :class:`probekit.target.api.Target` is one."""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]: ...

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None: ...


class Edit(NamedTuple):
    """One change of some bytes. It is a tuple and not a dataclass because there are up to 90,000 of them."""

    addr: int
    """Guest virtual address of the first byte."""
    old: bytes
    """The bytes that must be there before."""
    new: bytes
    """The bytes that replace them: as many as ``old``, and at least one."""


@dataclass(frozen=True, slots=True)
class RevertReport:
    """Lists what :func:`revert_edits` did, by the addresses of the edits."""

    restored: tuple[int, ...]
    """Edits whose new bytes were there; the old ones are back."""
    already: tuple[int, ...]
    """Edits whose old bytes were there already."""
    conflicts: tuple[tuple[int, bytes], ...]
    """(address, bytes found) of edits that found neither; those bytes were left alone."""
    unreadable: tuple[int, ...]
    """Edits whose memory is not mapped any more."""

    @property
    def clean(self) -> bool:
        """Whether every edited place has its old bytes now."""
        return not self.conflicts and not self.unreadable


class EditSet:
    """Holds edits that were checked, sorted and grouped before the guest is stopped for them.

    A kernel's sites lie close together, so the bytes of neighbours are read in one piece.
    """

    __slots__ = ("_runs", "edits")

    def __init__(self, edits: Iterable[Edit]) -> None:
        """Sort and check ``edits``. Raises :class:`ValueError` for lengths that differ, empty or overlapping edits."""
        self.edits: tuple[Edit, ...] = tuple(sorted(edits))
        """All edits, by address."""
        # (start, end, first, last): the edits first..last-1 are in these bytes
        self._runs: list[tuple[int, int, int, int]] = []
        begin = first = 0
        before = -1
        for index, edit in enumerate(self.edits):
            end = edit.addr + len(edit.old)
            if len(edit.old) != len(edit.new) or not edit.old:
                raise ValueError(f"edit at {edit.addr:#x}: {len(edit.old)} old bytes, {len(edit.new)} new bytes")
            if edit.addr < before:
                raise ValueError(f"edit at {edit.addr:#x} overlaps the edit before it")
            if index and (edit.addr - before > _MAX_GAP or end - begin > _MAX_RUN):
                self._runs.append((begin, before, first, index))
                begin, first = edit.addr, index
            elif not index:
                begin = edit.addr
            before = end
        if self.edits:
            self._runs.append((begin, before, first, len(self.edits)))

    def __len__(self) -> int:
        return len(self.edits)

    def read(self, target: TextMemory) -> list[bytes | None]:
        """Read the bytes that are at every edit now, in order; None where nothing is mapped."""
        found: list[bytes | None] = []
        pieces = target.read_many([(start, end - start) for start, end, _, _ in self._runs])
        for (start, _, first, last), data in zip(self._runs, pieces, strict=True):
            members = self.edits[first:last]
            if data is None:  # something between the windows may be unmapped
                found += target.read_many([(edit.addr, len(edit.old)) for edit in members])
            else:
                found += [data[addr - start : addr - start + len(old)] for addr, old, _ in members]
        return found


_MAX_GAP = 512  # bytes between two edits that one read still covers, because a second read costs more
_MAX_RUN = 1 << 16  # bytes of one read


def apply_edits(target: TextMemory, edits: EditSet | Iterable[Edit], journal: Callable[[Sequence[Edit]], None]) -> None:
    """Make all ``edits`` or none. The target is stopped, and no vCPU is inside a window (:func:`rips_inside`).

    ``journal``: called once, after every old byte was verified and before any
    is changed; it must have the edits on disk when it returns.
    Raises :class:`ConflictError` or :class:`MemoryAccessError` for bytes that are not as expected, and whatever
    ``journal`` raises. What was written is undone first; an undo that fails is noted on the error.
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
    """Raise :class:`ConflictError` or :class:`MemoryAccessError` unless ``found`` is what is expected at each edit."""
    if found == expected:  # one fast comparison for the usual case
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
    """Undo after ``error``, which the caller raises. A failing undo is noted on it; the journal still has all edits."""
    try:
        report = revert_edits(target, edits)
    except ProbekitError as second:
        error.add_note(f"undoing the edits failed too: {second}")
        return
    if not report.clean:
        places = [addr for addr, _ in report.conflicts] + list(report.unreadable)
        error.add_note(f"not undone, as these bytes are not ours: {', '.join(map(hex, places[:8]))}")


def revert_edits(target: TextMemory, edits: EditSet | Iterable[Edit]) -> RevertReport:
    """Put the old bytes back where the new ones still are. Safe to repeat; the target is stopped."""
    edits = edits if isinstance(edits, EditSet) else EditSet(edits)
    found = edits.read(target)
    ours, already, conflicts, unreadable = _sort_by_state(edits, found)
    target.write_many((edit.addr, edit.old) for edit in ours.edits)
    _verify(ours, ours.read(target), [edit.old for edit in ours.edits])
    return RevertReport(tuple(edit.addr for edit in ours.edits), tuple(already), tuple(conflicts), tuple(unreadable))


def _sort_by_state(
    edits: EditSet, found: Sequence[bytes | None]
) -> tuple[EditSet, list[int], list[tuple[int, bytes]], list[int]]:
    """Sort the edits by the bytes found there.

    Returns the edits whose new bytes are there, and addresses: where the old bytes are, where foreign bytes are (with
    those bytes), and where nothing is mapped.
    """
    ours: list[Edit] = []
    already: list[int] = []
    conflicts: list[tuple[int, bytes]] = []
    unreadable: list[int] = []
    if found == [edit.new for edit in edits.edits]:  # the usual case, in one fast comparison
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
        # A newer edit of a place may never have been made: the INT3 stage journaled and made, the next stage only
        # journaled. The newer edit then meets bytes that it does not know; the older one, undone next, knows them.
        for addr in (*report.restored, *report.already):
            conflicts.pop(addr, None)
        conflicts.update(report.conflicts)
    return RevertReport(tuple(restored), tuple(already), tuple(conflicts.items()), tuple(unreadable))


def rips_inside(rips: Iterable[int], edits: EditSet) -> tuple[int, ...]:
    """Return the instruction pointers strictly inside the bytes of an edit.

    A vCPU there would go on in the middle of the new jump. At the first byte it is safe, because it has not begun the
    instruction. When there are any, the caller lets the guest run a little and asks again.
    """
    inside: list[int] = []
    for rip in rips:
        index = bisect_left(edits.edits, rip, key=lambda edit: edit.addr) - 1  # the last that begins before rip
        if index >= 0 and rip < edits.edits[index].addr + len(edits.edits[index].old):
            inside.append(rip)
    return tuple(inside)
