"""What a journal says is in the guest: the replay of its records, and loading a journal that another process left.

The effect of a guest call on our memory and registrations follows from its purpose
and from what it returned. It counts from the record of its return on: the process may
have died before it could say more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from probekit.errors import JournalError
from probekit.guest.calls import Allocate, Free, GetModule, GuestCall, PutModule, RemoveListEntry, is_pointer
from probekit.guest.linux import Allocation
from probekit.patch import journal_payloads as payloads
from probekit.patch.edits import Edit
from probekit.patch.journal_payloads import MODULE, CallResult, JournalHeader, Registration
from probekit.patch.journal_records import (
    MAGIC_V1,
    Kind,
    Record,
    RecordError,
    decode_edits,
    first_record,
    read_records,
)
from probekit.patch.journal_v1 import translate
from probekit.records import record

__all__ = ("Batch", "JournalState", "Replay", "load", "load_header", "parse")

_MAX_FILE = 1 << 30
_HEADER_LIMIT = 1 << 16
_KERNEL = 1 << 63


class Batch(NamedTuple):
    """Edits that were journaled together."""

    number: int
    """Counted from 0 in each journal."""
    edits: tuple[Edit, ...]


@record
class JournalState:
    """What a journal says is in the guest."""

    path: Path
    header: JournalHeader
    records: tuple[Record, ...]
    """All whole records, in format 2 whatever format the file has."""
    batches: tuple[Batch, ...]
    """Edits not reverted, oldest first. Undo them newest first."""
    allocations: tuple[Allocation, ...]
    """Guest memory not freed, oldest first."""
    registrations: tuple[Registration, ...]
    """About to be made, or made, and not taken back; oldest first."""
    calls: tuple[GuestCall, ...]
    """Guest calls whose task was not given back, oldest first. All but the last were given up by their process."""
    table: int | None
    """Address of the recovery table's header; None when there is none."""
    notes: tuple[str, ...]
    """For people only."""
    torn: bool
    """Whether the last record was incomplete, and is ignored."""


class Replay:
    """What is in the guest after the records so far. Each method takes what one kind of record says.

    The process that writes a journal keeps one as well: what it knows of the guest is what the journal says.
    """

    def __init__(self) -> None:
        """Begin with a guest that has nothing of ours."""
        self.batches: dict[int, tuple[Edit, ...]] = {}
        self.allocations: dict[int, Allocation] = {}
        self.registrations: dict[Registration, None] = {}
        self.calls: dict[int, GuestCall] = {}
        """Guest calls whose task was not given back, by their ``rsp``."""
        self.table: int | None = None
        self.notes: list[str] = []
        self._next_batch = 0

    @property
    def empty(self) -> bool:
        """Whether nothing of ours is in the guest."""
        return not (self.batches or self.allocations or self.registrations or self.calls)

    def edits(self, edits: Sequence[Edit]) -> None:
        """Take a batch of edits that is about to be made."""
        self.batches[self._next_batch] = tuple(edits)
        self._next_batch += 1

    def reverted(self, batch: int) -> None:
        """Take the number of a batch that is undone."""
        if batch >= self._next_batch:
            raise RecordError(f"batch {batch} is undone and was never made")
        self.batches.pop(batch, None)

    def allocated(self, memory: Allocation) -> None:
        """Take memory that is ours; it may be known from its guest call already."""
        self.allocations[memory.addr] = memory

    def freed(self, addr: int) -> None:
        """Take the address of memory that is freed; that may be known from its guest call already."""
        self.allocations.pop(addr, None)

    def registered(self, items: Sequence[Registration]) -> None:
        """Take registrations that are about to be made."""
        self.registrations.update(dict.fromkeys(items))

    def unregistered(self, items: Sequence[Registration]) -> None:
        """Take registrations that are gone, or were never made."""
        for item in items:
            self.registrations.pop(item, None)

    def call_started(self, call: GuestCall) -> None:
        """Take a guest call that is about to be made.

        An earlier one with the same ``rsp`` is over: its task could not have made this one from inside a call.
        """
        self.calls.pop(call.rsp, None)
        self.calls[call.rsp] = call

    def call_returned(self, result: CallResult) -> None:
        """Take what a guest call returned, which tells what it did."""
        call = self.calls.get(result.rsp)
        if call is None:
            raise RecordError(f"no guest call returns to the stack at {result.rsp:#x}")
        value = result.value
        match call.purpose:
            case Allocate(kind, size) if is_pointer(value) and (kind == "percpu" or value >= _KERNEL):
                self.allocations.setdefault(value, Allocation(kind, value, size))
            case Free(addr):
                self.allocations.pop(addr, None)
            case GetModule(module) if value & 0xFF:  # bool try_module_get()
                self.registrations.setdefault(Registration(MODULE, (module,)))
            case PutModule(module):
                self.registrations.pop(Registration(MODULE, (module,)), None)
            case RemoveListEntry(kind, addr):
                self.registrations.pop(Registration(kind, (addr,)), None)

    def call_done(self, rsp: int) -> None:
        """Take the ``rsp`` of a call whose task is given back."""
        if self.calls.pop(rsp, None) is None:
            raise RecordError(f"no guest call returns to the stack at {rsp:#x}")

    def table_written(self, addr: int) -> None:
        """Take the address of the recovery table's header."""
        self.table = addr

    def table_wiped(self) -> None:
        """The header is about to be wiped."""
        self.table = None

    def note(self, text: str) -> None:
        """Take a note."""
        self.notes.append(text)

    def take(self, item: Record) -> None:
        """Take a record of format 2 as bytes. Raises :class:`RecordError`."""
        step = _STEPS.get(item.kind)
        if step is None:
            raise RecordError(f"a record of unknown kind {item.kind}")
        step(self, item.payload)


def _table_wiped(replay: Replay, payload: bytes) -> None:
    payloads.decode_table_wiped(payload)
    replay.table_wiped()


_STEPS: Mapping[int, Callable[[Replay, bytes], None]] = {
    Kind.EDITS: lambda replay, payload: replay.edits(decode_edits(payload)),
    Kind.EDITS_REVERTED: lambda replay, payload: replay.reverted(payloads.decode_batch(payload)),
    Kind.ALLOCATED: lambda replay, payload: replay.allocated(payloads.decode_allocation(payload)),
    Kind.FREED: lambda replay, payload: replay.freed(payloads.decode_freed(payload)),
    Kind.CALL_STARTED: lambda replay, payload: replay.call_started(payloads.decode_call(payload)),
    Kind.CALL_RETURNED: lambda replay, payload: replay.call_returned(payloads.decode_call_result(payload)),
    Kind.CALL_DONE: lambda replay, payload: replay.call_done(payloads.decode_call_done(payload)),
    Kind.REGISTERED: lambda replay, payload: replay.registered(payloads.decode_registrations(payload)),
    Kind.UNREGISTERED: lambda replay, payload: replay.unregistered(payloads.decode_registrations(payload)),
    Kind.TABLE_WRITTEN: lambda replay, payload: replay.table_written(payloads.decode_table(payload)),
    Kind.TABLE_WIPED: _table_wiped,
    Kind.NOTE: lambda replay, payload: replay.note(payloads.decode_note(payload)),
}


def load_header(path: Path) -> JournalHeader:
    """Read only whose journal it is. Raises :class:`JournalError` as :func:`load` does."""
    try:
        with path.open("rb") as stream:
            kind, payload = first_record(stream.read(_HEADER_LIMIT))
        if kind != Kind.HEADER:
            raise RecordError("it has no header")
        return payloads.decode_header(payload)
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    except RecordError as error:
        raise JournalError(
            f"{path} is no journal that can be trusted: {error}",
            path=str(path),
            hint="move the file away, then `probekit recover` finds what it spoke of in the guest itself",
        ) from error


def load(path: Path) -> JournalState:
    """Read a journal that another process left. Raises :class:`JournalError` for what is no journal, or is damaged."""
    try:
        if path.stat().st_size > _MAX_FILE:
            raise JournalError(f"{path} is too large to be a journal", path=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    return parse(data, path)


def parse(data: bytes, path: Path = Path()) -> JournalState:
    """Return what a journal's bytes say. ``path``: where they are from. Raises :class:`JournalError`."""
    try:
        found = read_records(data)
        records = found.records if found.magic != MAGIC_V1 else translate(found.records)
        return _replayed(path, records, torn=found.torn)
    except RecordError as error:
        raise JournalError(f"{path} is no journal that can be trusted: {error}", path=str(path)) from error


def _replayed(path: Path, records: Sequence[Record], *, torn: bool) -> JournalState:
    if not records or records[0].kind != Kind.HEADER:
        raise RecordError("it has no header")
    replay = Replay()
    for item in records[1:]:
        replay.take(item)
    return JournalState(
        path=path,
        header=payloads.decode_header(records[0].payload),
        records=tuple(records),
        batches=tuple(Batch(number, edits) for number, edits in replay.batches.items()),
        allocations=tuple(replay.allocations.values()),
        registrations=tuple(replay.registrations),
        calls=tuple(replay.calls.values()),
        table=replay.table,
        notes=tuple(replay.notes),
        torn=torn,
    )
