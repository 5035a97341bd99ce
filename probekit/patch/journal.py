"""Write the undo journal: it is complete on disk before the first guest byte changes.

When the host process is killed, the journal says what is left in the guest: which
bytes replaced which, what was allocated, which task was borrowed for a call, and what
was registered with the kernel. ``probekit recover`` reads it and puts everything back;
a clean end removes it.

    journal = Journal.create(default_dir(), header)
    batch = journal.edits(edits)          # fsync'ed when it returns
    ...
    journal.close_clean()                 # nothing of ours is left in the guest

Batches of edits are undone newest first, so that a place that was edited twice gets its
first bytes back. The last record may be torn, because the process died while writing it.
The change that it announces had not begun, since each change waits for its record. Damage
anywhere else is a :class:`~probekit.errors.JournalError`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self, TypeVar

from probekit.errors import InternalError, JournalError
from probekit.guest.calls import GuestCall
from probekit.guest.linux import Allocation
from probekit.patch import journal_payloads as payloads
from probekit.patch.edits import Edit
from probekit.patch.journal_payloads import CallResult, JournalHeader, Registration
from probekit.patch.journal_records import (
    MAGIC,
    MAGIC_V1,
    Kind,
    RecordError,
    encode_edits,
    encode_record,
    read_records,
)
from probekit.patch.journal_state import JournalState, load, parse

__all__ = ("STATE_FOLDER_HINT", "Journal", "default_dir", "find_journals", "remove_journal")

STATE_FOLDER_HINT = "set XDG_STATE_HOME to a folder that you can write to: the lock and the undo journal go there"
"""What to do when the folder of locks and journals cannot be used."""

_SUFFIX = ".journal"
_T = TypeVar("_T")


def default_dir() -> Path:
    """Return ``$XDG_STATE_HOME/probekit/journals``, or the same under ``~/.local/state``.

    Raises :class:`JournalError` for a user without a home directory.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        root = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise JournalError(
            "the undo journal has no place: you have no home directory", path="", hint=STATE_FOLDER_HINT
        ) from error
    return root / "probekit" / "journals"


def find_journals(directory: Path) -> list[Path]:
    """Return the journals in ``directory``, oldest first; none when there is no such directory.

    Raises :class:`JournalError` when it cannot be read.
    """
    try:
        return sorted(path for path in directory.iterdir() if path.name.endswith(_SUFFIX))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        message = f"the undo journals in {directory} cannot be read: {error.strerror}"
        raise JournalError(message, path=str(directory), hint=STATE_FOLDER_HINT) from error


def remove_journal(path: Path) -> None:
    """Remove a journal of which nothing is in the guest any more. Raises :class:`JournalError`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _failed("removed", path, error) from error


class Journal:
    """An open journal. A method that writes a record returns when it is on disk, or raises :class:`JournalError`."""

    def __init__(self, path: Path, fd: int) -> None:
        """Take an open file. Callers use :meth:`create` or :meth:`reopen` instead."""
        self.path = path
        """Where the file is."""
        self._fd = fd
        self._size = 0
        """Bytes of the magic and the whole records so far."""
        self._batches = 0
        """How many batches of edits were written."""

    @classmethod
    def create(cls, directory: Path, header: JournalHeader, reserve: int = 0) -> Self:
        """Begin a journal in ``directory``. A missing directory is made, readable for its owner only.

        ``reserve``: bytes that the records will need. The disk space is taken now, so that a full disk is noticed
        before anything is changed in the guest. Raises :class:`JournalError`.
        """
        path = _new_path(directory, header)
        return cls._make(path, MAGIC + encode_record(Kind.HEADER, payloads.encode_header(header)), reserve)

    @classmethod
    def adopt(cls, directory: Path, data: bytes, table: int, target: str) -> JournalState:
        """Write ``data``, the bytes of a journal found in guest memory, to a new file in ``directory``.

        ``table``: address of the header of the recovery table that it is from. ``target``: the guest's name here, where
        it may have another one than on the host that wrote the journal.
        Returns what the journal says. Raises :class:`JournalError`.
        """
        state = parse(data)
        header = replace(state.header, target=target)
        if not data.startswith(MAGIC_V1):
            first = encode_record(Kind.HEADER, payloads.encode_header(header))
            data = MAGIC + first + b"".join(encode_record(Kind(kind), text) for kind, text in state.records[1:])
        path = _new_path(directory, header)
        journal = cls._make(path, data)
        try:
            if not data.startswith(MAGIC_V1):  # a journal of format 1 gets no records of format 2
                journal.table_written(table)
        finally:
            journal.close()
        return load(path)

    @classmethod
    def reopen(cls, state: JournalState) -> Self:
        """Go on with a journal that another process left; a torn tail is cut off first.

        A file of format 1 is replaced by one of format 2 that says the same. Raises :class:`JournalError`.
        """
        path = state.path
        try:
            data = path.read_bytes()
            found = read_records(data)
            if found.magic == MAGIC_V1:
                whole = MAGIC + b"".join(encode_record(Kind(kind), payload) for kind, payload in state.records)
                journal = cls._make(path, whole, max(len(data) - len(whole), 0))
            else:
                journal = cls(path, os.open(path, os.O_WRONLY | os.O_CLOEXEC))
                journal._size = found.size
                journal._cut()
                if journal._fd < 0:
                    raise RecordError("its torn end cannot be cut off")
        except (OSError, RecordError) as error:
            raise JournalError(f"{path} cannot be continued: {error}", path=str(path)) from error
        journal._batches = sum(record.kind == Kind.EDITS for record in state.records)
        return journal

    @classmethod
    def _make(cls, path: Path, data: bytes, reserve: int = 0) -> Self:
        """Make the file ``path`` with ``data``. It gets its name when all is on disk, and may replace an older file."""
        making = path.with_suffix(".new")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replaces = path.exists()
            making.unlink(missing_ok=True)
            fd = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed("created", path, error) from error
        journal = cls(path, fd)
        try:
            journal._write(data)
            if reserve:
                os.posix_fallocate(fd, 0, len(data) + reserve)
            making.rename(path)
            _sync_directory(path.parent)
        except (JournalError, OSError) as error:
            journal.close()
            making.unlink(missing_ok=True)
            if not replaces:
                path.unlink(missing_ok=True)
            raise _failed("created", path, _cause(error)) from error
        return journal

    def contents(self) -> bytes:
        """Return the bytes of all whole records, for the recovery table. Raises :class:`JournalError`."""
        try:
            return self.path.read_bytes()[: self._size]
        except OSError as error:
            raise JournalError(f"{self.path} cannot be read: {error.strerror}", path=str(self.path)) from error

    def edits(self, edits: Sequence[Edit]) -> int:
        """Write that these edits are about to be made, as one batch. Returns the batch's number, from 0."""
        self._write(encode_record(Kind.EDITS, encode_edits(edits)))
        self._batches += 1
        return self._batches - 1

    def reverted(self, batch: int) -> None:
        """Write that the edits of ``batch`` are undone."""
        self._record(Kind.EDITS_REVERTED, batch, payloads.encode_batch, payloads.decode_batch)

    def allocated(self, memory: Allocation) -> None:
        """Write that the guest has allocated this memory for us."""
        self._record(Kind.ALLOCATED, memory, payloads.encode_allocation, payloads.decode_allocation)

    def freed(self, addr: int) -> None:
        """Write that the memory at ``addr`` was given back to the guest."""
        self._record(Kind.FREED, addr, payloads.encode_freed, payloads.decode_freed)

    def registered(self, items: Sequence[Registration]) -> None:
        """Write that these registrations are about to be made."""
        self._record(Kind.REGISTERED, list(items), payloads.encode_registrations, payloads.decode_registrations)

    def unregistered(self, items: Sequence[Registration]) -> None:
        """Write that these registrations were taken back, or were never made."""
        self._record(Kind.UNREGISTERED, list(items), payloads.encode_registrations, payloads.decode_registrations)

    def call_started(self, call: GuestCall) -> None:
        """Write that this guest call is about to be made."""
        self._record(Kind.CALL_STARTED, call, payloads.encode_call, payloads.decode_call)

    def call_returned(self, result: CallResult) -> None:
        """Write what a guest call returned."""
        self._record(Kind.CALL_RETURNED, result, payloads.encode_call_result, payloads.decode_call_result)

    def call_done(self, rsp: int) -> None:
        """Write that the task of the call with this ``rsp`` is given back."""
        self._record(Kind.CALL_DONE, rsp, payloads.encode_call_done, payloads.decode_call_done)

    def table_written(self, addr: int) -> None:
        """Write that the whole recovery table is in the guest, with its header at ``addr``."""
        self._record(Kind.TABLE_WRITTEN, addr, payloads.encode_table, payloads.decode_table)

    def table_wiped(self) -> None:
        """Write that the recovery table's header is about to be wiped."""
        self._write(encode_record(Kind.TABLE_WIPED, payloads.encode_table_wiped()))

    def note(self, text: str) -> None:
        """Write a note for people. probekit decides nothing by it."""
        self._write(encode_record(Kind.NOTE, payloads.encode_note(text)))

    def close(self) -> None:
        """Close the file and keep it, because something of ours is still in the guest."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close_clean(self) -> None:
        """Close and remove the file, because nothing of ours is left in the guest. Raises :class:`JournalError`."""
        self.close()
        remove_journal(self.path)

    def _record(self, kind: Kind, item: _T, encode: Callable[[_T], bytes], decode: Callable[[bytes], _T]) -> None:
        """Write a small record, after a check that a recovery can read it.

        Raises :class:`JournalError` when it cannot; then the change that the record announces must not be made.
        """
        payload = encode(item)
        try:
            same = decode(payload) == item
        except RecordError as error:
            raise JournalError(f"the undo journal cannot hold this: {error}", path=str(self.path)) from error
        if not same:
            raise InternalError(f"a record of kind {kind.name} is read back as another")
        self._write(encode_record(kind, payload))

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            raise JournalError("the journal is closed", path=str(self.path))
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except BaseException as error:
            self._cut()
            if isinstance(error, OSError):
                raise _failed("written", self.path, error) from error
            raise
        self._size += len(data)

    def _cut(self) -> None:
        """Cut off a half-written record, so that no later record follows it. If that fails too, close the file."""
        try:
            room = os.fstat(self._fd).st_size
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
        except OSError:
            self.close()
            return
        with suppress(OSError):  # without it later records may find the disk full
            os.posix_fallocate(self._fd, 0, max(room, 1))


def _new_path(directory: Path, header: JournalHeader) -> Path:
    stamp = f"{time.time_ns():020d}-{sha256(header.target.encode()).hexdigest()[:12]}-{header.host_pid}"
    return directory / f"{stamp}{_SUFFIX}"


_HINTS = {
    "created": "nothing was changed in the guest; free some space or set XDG_STATE_HOME to a writable place",
    "written": "the change that it should record was not made; free some space, then run `probekit recover`",
    "removed": "nothing of it is left in the guest; `probekit recover` removes it when its folder can be written to",
}


def _failed(verb: Literal["created", "written", "removed"], path: Path, error: OSError) -> JournalError:
    message = f"the undo journal could not be {verb}: {path}: {error.strerror}"
    return JournalError(message, path=str(path), hint=_HINTS[verb])


def _cause(error: JournalError | OSError) -> OSError:
    cause = error.__cause__ if isinstance(error, JournalError) else error
    return cause if isinstance(cause, OSError) else OSError(0, str(error))


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
