"""Replay a journal's records to find what is in the guest, and load a journal that another process left.

What a guest call did to our memory and registrations follows from its purpose and
from what it returned. It takes effect in the replay with the record of its return,
because the process may have died before it wrote another record.
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
    """The batch's number in its journal, from 0."""
    edits: tuple[Edit, ...]
    """The edits, in the order in which they were given."""


@record
class JournalState:
    """Holds what a journal says is in the guest."""

    path: Path
    """Where the journal was read from; ``Path()`` for one that was in no file."""
    header: JournalHeader
    """Which guest, kernel and host process the journal is of."""
    records: tuple[Record, ...]
    """All whole records, in format 2 whatever format the file has."""
    batches: tuple[Batch, ...]
    """Edits not reverted, oldest first. Undo them newest first."""
    allocations: tuple[Allocation, ...]
    """Guest memory not freed, oldest first."""
    registrations: tuple[Registration, ...]
    """Registrations that were made or about to be made, and not taken back; oldest first."""
    calls: tuple[GuestCall, ...]
    """Guest calls whose task was not given back, oldest first. The process gave up waiting for all but the last."""
    table: int | None
    """Address of the recovery table's header; None when there is none."""
    notes: tuple[str, ...]
    """Notes for people, oldest first."""
    torn: bool
    """Whether the last record was incomplete and was left out."""


class Replay:
    """Keeps what is in the guest after the records so far. Each method takes the contents of one kind of record.

    The process that writes a journal feeds one with the same records, so that it knows exactly what the journal says.
    """

    def __init__(self) -> None:
        """Begin with a guest that has nothing of ours."""
        self.batches: dict[int, tuple[Edit, ...]] = {}
        """Edits not reverted, by the batch's number."""
        self.allocations: dict[int, Allocation] = {}
        """Guest memory not freed, by its address."""
        self.stamped: set[int] = set()
        """Addresses of allocations whose own record was written, which happens after their stamp was."""
        self.after_table: set[int] = set()
        """Addresses of allocations that were made after the recovery table was written, which no table lists."""
        self.registrations: dict[Registration, None] = {}
        """Registrations not taken back, oldest first; the keys are an ordered set."""
        self.calls: dict[int, GuestCall] = {}
        """Guest calls whose task was not given back, by their ``rsp``."""
        self.table: int | None = None
        """Address of the recovery table's header; None when there is none."""
        self.notes: list[str] = []
        """Notes for people, oldest first."""
        self._next_batch = 0
        self._tabled = False

    @property
    def empty(self) -> bool:
        """Whether nothing of ours is in the guest."""
        return not (self.batches or self.allocations or self.registrations or self.calls)

    def edits(self, edits: Sequence[Edit]) -> None:
        """Take a batch of edits that is about to be made."""
        self.batches[self._next_batch] = tuple(edits)
        self._next_batch += 1

    def reverted(self, batch: int) -> None:
        """Take the number of a batch that is undone. Raises :class:`RecordError` for a number not given yet."""
        if batch >= self._next_batch:
            raise RecordError(f"batch {batch} is undone and was never made")
        self.batches.pop(batch, None)

    def allocated(self, memory: Allocation) -> None:
        """Take memory that was allocated for us; the replay of its guest call may have added it already."""
        self.allocations[memory.addr] = memory
        self.stamped.add(memory.addr)
        self._note_time(memory.addr)

    def freed(self, addr: int) -> None:
        """Take the address of memory that was freed; the replay of its guest call may have removed it already."""
        self.allocations.pop(addr, None)
        self.stamped.discard(addr)
        self.after_table.discard(addr)

    def _note_time(self, addr: int) -> None:
        if self._tabled:
            self.after_table.add(addr)

    def registered(self, items: Sequence[Registration]) -> None:
        """Take registrations that are about to be made."""
        self.registrations.update(dict.fromkeys(items))

    def unregistered(self, items: Sequence[Registration]) -> None:
        """Take registrations that were taken back, or were never made."""
        for item in items:
            self.registrations.pop(item, None)

    def call_started(self, call: GuestCall) -> None:
        """Take a guest call that is about to be made.

        An earlier call with the same ``rsp`` has ended: that part of the stack was free again.
        """
        self.calls.pop(call.rsp, None)
        self.calls[call.rsp] = call

    def call_returned(self, result: CallResult) -> None:
        """Take what a guest call returned, and do to this replay what the call did in the guest.

        Raises :class:`RecordError` when no such call was started.
        """
        call = self.calls.get(result.rsp)
        if call is None:
            raise RecordError(f"no guest call returns to the stack at {result.rsp:#x}")
        value = result.value
        match call.purpose:
            case Allocate(kind, size) if is_pointer(value) and (kind == "percpu" or value >= _KERNEL):
                self.allocations.setdefault(value, Allocation(kind, value, size))
                self._note_time(value)
            case Free(addr):
                self.freed(addr)
            case GetModule(module) if value & 0xFF:  # bool try_module_get()
                self.registrations.setdefault(Registration(MODULE, (module,)))
            case PutModule(module):
                self.registrations.pop(Registration(MODULE, (module,)), None)
            case RemoveListEntry(kind, addr):
                self.registrations.pop(Registration(kind, (addr,)), None)

    def call_done(self, rsp: int) -> None:
        """Take the ``rsp`` of a call whose task is given back. Raises :class:`RecordError` for an unknown one."""
        if self.calls.pop(rsp, None) is None:
            raise RecordError(f"no guest call returns to the stack at {rsp:#x}")

    def table_written(self, addr: int) -> None:
        """Take the address of the recovery table's header."""
        self.table = addr
        self._tabled = True

    def table_wiped(self) -> None:
        """Note that the recovery table's header is about to be wiped."""
        self.table = None

    def note(self, text: str) -> None:
        """Take a note."""
        self.notes.append(text)

    def take(self, item: Record) -> None:
        """Decode a record of format 2 and take its contents. Raises :class:`RecordError`."""
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
    """Read a journal's header only. Raises :class:`JournalError` as :func:`load` does."""
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
            hint="move the file away, then `probekit recover` searches the guest's memory for a copy of the journal",
        ) from error


def load(path: Path) -> JournalState:
    """Read and replay a journal that another process left. Raises :class:`JournalError` for a file that is none."""
    try:
        if path.stat().st_size > _MAX_FILE:
            raise JournalError(f"{path} is too large to be a journal", path=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    return parse(data, path)


def parse(data: bytes, path: Path = Path()) -> JournalState:
    """Replay the bytes of a journal. ``path``: the file that they are from. Raises :class:`JournalError`."""
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
