"""Writes and reads the undo journal of one guest, on this machine's disk.

An engine writes every change to it before it makes the change. A recovery reads it, undoes the changes and notes that.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

import psutil

from probekit.errors import JournalError
from probekit.guest.calls import GuestCall
from probekit.guest.linux import Allocation
from probekit.kernel.kernel import Kernel
from probekit.patch.edits import Edit
from probekit.patch.journal import Journal, default_dir, find_journals
from probekit.patch.journal_payloads import CallResult, JournalHeader, Registration
from probekit.patch.journal_state import Batch, JournalState, Replay, load, load_header
from probekit.session.identity import target_key

__all__ = ("JournalLog", "journals_of", "new_journal")

_ROOM = 1 << 16  # bytes for all records but the edits: about 30 guest calls of under 1 KiB each


class JournalLog:
    """Keeps an :class:`probekit.enabling.api.EngineLog` on disk, and its current contents in memory."""

    def __init__(self, journal: Journal, token: bytes = b"") -> None:
        """Begin with an empty journal. ``token``: of its header."""
        self._journal = journal
        self.token = token
        """The token of the journal: the stamp of its memory. Empty in a journal of an earlier version."""
        self._contents = Replay()
        self._pending: deque[Callable[[], None]] = deque()
        """Each call writes a record that the disk did not take yet. These are written before any new record."""

    @classmethod
    def reopen(cls, state: JournalState) -> Self:
        """Continue a journal that another process left. Raises :class:`probekit.errors.JournalError`."""
        log = cls(Journal.reopen(state), state.header.token)
        for item in state.records[1:]:
            log._contents.take(item)
        return log

    @property
    def path(self) -> Path:
        """Where the journal's file is."""
        return self._journal.path

    # -- what is in the guest, by the journal ------------------------------------------------------------------------

    @property
    def needed(self) -> bool:
        """Whether something of ours is in the guest."""
        return not self._contents.empty

    @property
    def borrowed(self) -> bool:
        """Whether a guest task was borrowed and not given back."""
        return bool(self._contents.calls)

    @property
    def batches(self) -> tuple[Batch, ...]:
        """Edits that stand, oldest first."""
        return tuple(Batch(number, edits) for number, edits in self._contents.batches.items())

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        """Guest memory that was allocated and not freed, oldest first."""
        return tuple(self._contents.allocations.values())

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """Registrations that the kernel may have made for us, oldest first."""
        return tuple(self._contents.registrations)

    @property
    def calls(self) -> tuple[GuestCall, ...]:
        """Guest calls whose task was not given back, oldest first."""
        return tuple(self._contents.calls.values())

    @property
    def stamped(self) -> frozenset[int]:
        """Addresses of the allocations that certainly have their stamp. Only the last one may not have it yet."""
        return frozenset(self._contents.stamped) if self.token else frozenset()

    @property
    def after_table(self) -> frozenset[int]:
        """Addresses of the allocations that no recovery table lists, as they were made after it was written."""
        return frozenset(self._contents.after_table)

    @property
    def table_addr(self) -> int | None:
        """Address of the recovery table's header, while it stands."""
        return self._contents.table

    # -- EngineLog ---------------------------------------------------------------------------------------------------

    def edits(self, edits: Sequence[Edit]) -> None:
        """Note edits, before the first byte of them is written."""
        self._write_pending()
        self._journal.edits(edits)
        self._contents.edits(edits)

    def reverted(self) -> None:
        """Note that all edits are undone."""
        for batch in reversed(self.batches):
            self._contents.reverted(batch.number)
            self._happened(partial(self._journal.reverted, batch.number))

    def allocated(self, memory: Allocation) -> None:
        """Note that guest memory was allocated."""
        self._contents.allocated(memory)
        self._happened(lambda: self._journal.allocated(memory))

    def freed(self, memory: Allocation) -> None:
        """Note that guest memory was freed."""
        self._contents.freed(memory.addr)
        self._happened(lambda: self._journal.freed(memory.addr))

    def registered(self, items: Sequence[Registration]) -> None:
        """Note registrations before the kernel makes them."""
        self._write_pending()
        self._journal.registered(items)
        self._contents.registered(items)

    def unregistered(self, items: Sequence[Registration]) -> None:
        """Note that the kernel took registrations back."""
        self._contents.unregistered(items)
        self._happened(lambda: self._journal.unregistered(items))

    def call_started(self, call: GuestCall) -> None:
        """Note that a guest task is about to be borrowed."""
        self._write_pending()
        self._journal.call_started(call)
        self._contents.call_started(call)

    def call_returned(self, rsp: int, value: int) -> None:
        """Note what a call returned."""
        result = CallResult(rsp, value)
        self._write_pending()
        self._journal.call_returned(result)
        self._contents.call_returned(result)

    def call_done(self, rsp: int) -> None:
        """Note that the task of a call was given back."""
        self._contents.call_done(rsp)
        self._happened(lambda: self._journal.call_done(rsp))

    def table_written(self, addr: int) -> None:
        """Note that the recovery table stands in the guest, with its header at ``addr``."""
        self._write_pending()
        self._journal.table_written(addr)
        self._contents.table_written(addr)

    def table_wiped(self) -> None:
        """Note that the recovery table's header is about to be wiped."""
        self._write_pending()
        self._journal.table_wiped()
        self._contents.table_wiped()

    def contents(self) -> bytes:
        """Return the whole journal as bytes, for the recovery table in the guest."""
        return self._journal.contents()

    def _happened(self, write: Callable[[], None]) -> None:
        """Write a record of a change that the guest has already seen. If the disk is full, write it later."""
        self._pending.append(write)
        self._write_pending()

    def _write_pending(self) -> None:
        while self._pending:
            self._pending[0]()
            self._pending.popleft()

    # -- the file ----------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Write a note for people who read the journal."""
        self._journal.note(text)

    def forget(self) -> None:
        """Remove the journal, because its guest is gone or was restored by somebody else."""
        self._journal.close_clean()

    def close(self, *, keep: bool = False) -> None:
        """Remove the journal when nothing of ours is left in the guest. Keep it otherwise, and always for ``keep``."""
        if keep or self.needed:
            with suppress(JournalError):  # the last attempt; without these records a recovery has more to find out
                self._write_pending()
            self._journal.close()
        else:
            self._journal.close_clean()


def new_journal(spec: str, kernel: Kernel, cookie: bytes, edits: int) -> JournalLog:
    """Create the journal of one enabling. ``edits``: bytes of its records of edits.

    Raises :class:`probekit.errors.JournalError` when the disk has no room for all of it.
    """
    process = psutil.Process()
    header = JournalHeader(
        target=target_key(spec),
        host_pid=os.getpid(),
        host_start=process.create_time(),
        build_id=bytes.fromhex(kernel.build_id or ""),
        base=kernel.base,
        cookie=cookie,
        token=secrets.token_bytes(8),
    )
    return JournalLog(Journal.create(default_dir(), header, edits + _ROOM), header.token)


def journals_of(spec: str) -> list[JournalState]:
    """Return the journals of a target that are on disk, oldest first.

    Raises :class:`probekit.errors.JournalError` when one of them is damaged.
    """
    key = target_key(spec)
    return [load(path) for path in find_journals(default_dir()) if load_header(path).target == key]
