"""The undo journal: on disk, complete, before the first guest byte changes.

Whatever kills the host process, the journal says what stands in the guest that
was not there before: which bytes replaced which, what was allocated, which
vCPU was borrowed for a call and where it was, what the kernel was told of. ``probekit recover`` reads it
and puts everything back; a clean end removes it.

    journal = Journal.create(default_dir(), header)
    batch = journal.edits(edits)          # fsync'ed when it returns
    ...
    journal.close_clean()                 # nothing of ours is left in the guest

Batches of edits are undone newest first, so that an edit of an edited place
is undone through both. A journal's tail may be torn (the process died while
writing): that record's work had not begun, as every record comes before the
deed. Damage anywhere else is a :class:`~probekit.errors.JournalError`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Self

from probekit.errors import JournalError
from probekit.patch.edits import Edit
from probekit.patch.journal_records import (
    MAGIC,
    Facts,
    Kind,
    RecordError,
    encode_edits,
    encode_facts,
    encode_record,
    read_records,
    whole_size,
)
from probekit.patch.journal_state import Allocation, Call, JournalHeader, JournalState, Registration, parse

__all__ = ("Journal", "default_dir", "find_journals")

_SUFFIX = ".journal"


def default_dir() -> Path:
    """``$XDG_STATE_HOME/probekit/journals``, or the same under ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME", "")
    root = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return root / "probekit" / "journals"


def find_journals(directory: Path) -> list[Path]:
    """The journals in ``directory``, oldest first; none when there is no such directory."""
    return sorted(directory.glob(f"*{_SUFFIX}")) if directory.is_dir() else []


class Journal:
    """An open journal. Every method returns after its record is on disk, or raises :class:`JournalError`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._size = 0
        self._batches = 0

    @classmethod
    def create(cls, directory: Path, header: JournalHeader, reserve: int = 0) -> Self:
        """A new journal in ``directory`` (made, for the owner only, if it is not there).

        ``reserve``: bytes that it will need. They are taken now, so that a full disk is noticed before anything is
        changed in the guest, and never in the middle of it.
        """
        path = _new_path(directory, header)
        return cls._make(path, MAGIC + encode_record(Kind.HEADER, encode_facts(_header_facts(header))), reserve)

    @classmethod
    def adopt(cls, directory: Path, data: bytes) -> JournalState:
        """Keep the bytes of a journal that was found elsewhere, in ``directory``. Raises :class:`JournalError`."""
        state = parse(data)
        path = _new_path(directory, state.header)
        cls._make(path, data).close()
        return replace(state, path=path)

    @classmethod
    def _make(cls, path: Path, data: bytes, reserve: int = 0) -> Self:
        """A file that has all of ``data`` from the moment that it has its name."""
        making = path.with_suffix(".new")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
            path.unlink(missing_ok=True)
            raise error if isinstance(error, JournalError) else _failed("created", path, error) from error
        return journal

    def contents(self) -> bytes:
        """Everything that is on disk, for a copy of it elsewhere. Raises :class:`JournalError`."""
        try:
            return self.path.read_bytes()[: self._size]
        except OSError as error:
            raise JournalError(f"{self.path} cannot be read: {error.strerror}", path=str(self.path)) from error

    @classmethod
    def reopen(cls, state: JournalState) -> Self:
        """Go on with a journal that another process left; a torn tail is cut off first."""
        try:
            records, _ = read_records(state.path.read_bytes())
            fd = os.open(state.path, os.O_WRONLY | os.O_CLOEXEC)
            journal = cls(state.path, fd)
            journal._size = whole_size(records)
            journal._batches = sum(record.kind == Kind.EDITS for record in records)
            os.ftruncate(fd, journal._size)
            os.lseek(fd, journal._size, os.SEEK_SET)
        except (OSError, RecordError) as error:
            raise JournalError(f"{state.path} cannot be continued: {error}", path=str(state.path)) from error
        return journal

    def edits(self, edits: Sequence[Edit]) -> int:
        """Edits about to be made; all of them, in one batch. Returns the batch's number."""
        self._write(encode_record(Kind.EDITS, encode_edits(edits)))
        self._batches += 1
        return self._batches - 1

    def reverted(self, batch: int) -> None:
        """The edits of ``batch`` are undone."""
        self._record(Kind.EDITS_REVERTED, {"batch": batch})

    def allocated(self, allocation: Allocation) -> None:
        self._record(
            Kind.ALLOCATED,
            {
                "kind": allocation.kind,
                "addr": allocation.addr,
                "size": allocation.size,
                "detail": dict(allocation.detail),
            },
        )

    def freed(self, addr: int) -> None:
        self._record(Kind.FREED, {"addr": addr})

    def registered(self, items: Sequence[Registration]) -> None:
        """Registrations about to be made."""
        self._record(Kind.REGISTERED, _registrations_facts(items))

    def unregistered(self, items: Sequence[Registration]) -> None:
        """They are taken back, or were never made."""
        self._record(Kind.UNREGISTERED, _registrations_facts(items))

    def call_started(self, call: Call) -> None:
        self._record(
            Kind.CALL_STARTED,
            {
                "vcpu": call.vcpu,
                "raw": call.raw.hex(),
                "regs": dict(call.regs),
                "return_addr": call.return_addr,
                "rsp": call.rsp,
            },
        )

    def call_done(self) -> None:
        self._record(Kind.CALL_DONE, {})

    def note(self, text: str) -> None:
        """A phase that was passed, for the reader of a recovery."""
        self._record(Kind.NOTE, {"text": text})

    def close(self) -> None:
        """Close the file and leave it: something of ours is still in the guest."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close_clean(self) -> None:
        """Nothing of ours is left in the guest: remove the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _record(self, kind: Kind, facts: Facts) -> None:
        self._write(encode_record(kind, encode_facts(facts)))

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            raise JournalError("the journal is closed", path=str(self.path))
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except OSError as error:
            self._cut()
            raise _failed("written", self.path, error) from error
        self._size += len(data)

    def _cut(self) -> None:
        # Half a record must not stand before a later whole one. If even this fails, the tail is torn and tolerated.
        try:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
        except OSError:
            self.close()


def _new_path(directory: Path, header: JournalHeader) -> Path:
    stamp = f"{time.time_ns():020d}-{sha256(header.target.encode()).hexdigest()[:12]}-{header.host_pid}"
    return directory / f"{stamp}{_SUFFIX}"


def _failed(verb: str, path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"the undo journal could not be {verb}: {path}: {error.strerror}",
        path=str(path),
        hint="nothing was changed in the guest; free some space or set XDG_STATE_HOME to a writable place",
    )


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _header_facts(header: JournalHeader) -> Facts:
    return {
        "target": header.target,
        "host_pid": header.host_pid,
        "host_start": float(header.host_start),
        "build_id": header.build_id.hex(),
        "base": header.base,
        "cookie": header.cookie.hex(),
    }


def _registrations_facts(items: Sequence[Registration]) -> Facts:
    return {"items": [[item.kind, *item.words] for item in items]}
