"""The undo journal of one guest on this machine's disk: an engine fills it, a recovery empties it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
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

_ROOM = 1 << 16  # for all but the edits: some 30 guest calls of an enabling and its end, under 1 KiB each


class JournalLog:
    """An :class:`probekit.enabling.api.EngineLog` on disk. It always knows what its journal says."""

    def __init__(self, journal: Journal) -> None:
        """Begin with a journal that says nothing yet."""
        self._journal = journal
        self._said = Replay()
        self._owed: deque[Callable[[], None]] = deque()
        """Writes what has happened and the disk did not take; it comes before whatever is written next."""

    @classmethod
    def reopen(cls, state: JournalState) -> Self:
        """Go on with a journal that another process left. Raises :class:`probekit.errors.JournalError`."""
        log = cls(Journal.reopen(state))
        for item in state.records[1:]:
            log._said.take(item)
        return log

    # -- what is in the guest, as the journal says -------------------------------------------------------------------

    @property
    def needed(self) -> bool:
        """Whether something of ours is in the guest."""
        return not self._said.empty

    @property
    def borrowed(self) -> bool:
        """Whether a guest task was borrowed and not given back."""
        return bool(self._said.calls)

    @property
    def batches(self) -> tuple[Batch, ...]:
        """Edits that stand, oldest first."""
        return tuple(Batch(number, edits) for number, edits in self._said.batches.items())

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        """Guest memory that is ours, oldest first."""
        return tuple(self._said.allocations.values())

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """What the kernel may have registered of ours, oldest first."""
        return tuple(self._said.registrations)

    @property
    def calls(self) -> tuple[GuestCall, ...]:
        """Guest calls whose task was not given back, oldest first."""
        return tuple(self._said.calls.values())

    @property
    def table_addr(self) -> int | None:
        """Address of the recovery table's header, while it stands."""
        return self._said.table

    # -- EngineLog ---------------------------------------------------------------------------------------------------

    def edits(self, edits: Sequence[Edit]) -> None:
        """Note edits before the first byte of them is written."""
        self._write_owed()
        self._journal.edits(edits)
        self._said.edits(edits)

    def reverted(self) -> None:
        """Note that all edits are undone."""
        for batch in reversed(self.batches):
            self._said.reverted(batch.number)
            self._happened(partial(self._journal.reverted, batch.number))

    def allocated(self, memory: Allocation) -> None:
        """Note that guest memory is ours."""
        self._said.allocated(memory)
        self._happened(lambda: self._journal.allocated(memory))

    def freed(self, memory: Allocation) -> None:
        """Note that guest memory was freed."""
        self._said.freed(memory.addr)
        self._happened(lambda: self._journal.freed(memory.addr))

    def registered(self, items: Sequence[Registration]) -> None:
        """Note registrations before the kernel makes them."""
        self._write_owed()
        self._journal.registered(items)
        self._said.registered(items)

    def unregistered(self, items: Sequence[Registration]) -> None:
        """Note that the kernel took registrations back."""
        self._said.unregistered(items)
        self._happened(lambda: self._journal.unregistered(items))

    def call_started(self, call: GuestCall) -> None:
        """Note that a guest task is about to be borrowed."""
        self._write_owed()
        self._journal.call_started(call)
        self._said.call_started(call)

    def call_returned(self, rsp: int, value: int) -> None:
        """Note what a call returned."""
        result = CallResult(rsp, value)
        self._write_owed()
        self._journal.call_returned(result)
        self._said.call_returned(result)

    def call_done(self, rsp: int) -> None:
        """Note that the task of a call was given back."""
        self._said.call_done(rsp)
        self._happened(lambda: self._journal.call_done(rsp))

    def table_written(self, addr: int) -> None:
        """See :class:`probekit.enabling.api.EngineLog`."""
        self._write_owed()
        self._journal.table_written(addr)
        self._said.table_written(addr)

    def table_wiped(self) -> None:
        """See :class:`probekit.enabling.api.EngineLog`."""
        self._write_owed()
        self._journal.table_wiped()
        self._said.table_wiped()

    def contents(self) -> bytes:
        """Return all of it as bytes, for the guest to keep."""
        return self._journal.contents()

    def _happened(self, write: Callable[[], None]) -> None:
        """Write what has happened in the guest. It has, whether or not the disk takes it now."""
        self._owed.append(write)
        self._write_owed()

    def _write_owed(self) -> None:
        while self._owed:
            self._owed[0]()
            self._owed.popleft()

    # -- the file ----------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Write a note for people."""
        self._journal.note(text)

    def forget(self) -> None:
        """Remove the journal: the guest that it speaks of is gone, or somebody else put it right."""
        self._journal.close_clean()

    def close(self, *, keep: bool = False) -> None:
        """Remove the journal when nothing of ours is left in the guest. Keep it otherwise, and always for ``keep``."""
        if keep or self.needed:
            with suppress(JournalError):  # the last chance: a recovery then has less to find out
                self._write_owed()
            self._journal.close()
        else:
            self._journal.close_clean()


def new_journal(spec: str, kernel: Kernel, cookie: bytes, edits: int) -> JournalLog:
    """Begin a journal for one enabling, whose record of edits takes ``edits`` bytes.

    Raises :class:`probekit.errors.JournalError` before anything is changed, also when the disk would not hold it all.
    """
    process = psutil.Process()
    header = JournalHeader(
        target=target_key(spec),
        host_pid=os.getpid(),
        host_start=process.create_time(),
        build_id=bytes.fromhex(kernel.build_id or ""),
        base=kernel.base,
        cookie=cookie,
    )
    return JournalLog(Journal.create(default_dir(), header, edits + _ROOM))


def journals_of(spec: str) -> list[JournalState]:
    """Return the journals that are left for a target, oldest first. Raises JournalError for a damaged one of it."""
    key = target_key(spec)
    return [load(path) for path in find_journals(default_dir()) if load_header(path).target == key]
