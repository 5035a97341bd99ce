"""What this machine's disk knows of one guest: the lock while we hold it, the journal while we change it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import psutil

from probekit.guest.linux import Allocation
from probekit.kernel.image import Kernel
from probekit.patch import journal_state as disk
from probekit.patch.edits import Edit
from probekit.patch.journal import Journal, default_dir, find_journals
from probekit.patch.journal_state import JournalHeader, JournalState, Registration
from probekit.session.identity import target_key

__all__ = ("JournalLog", "has_table", "journals_of", "last_call", "new_journal")

_CALL = "call: "
_RETURNED = "returned: "
_TABLE = "the recovery table is in the guest"
_WIPED = "the recovery table is wiped"
_ROOM = 1 << 16  # for all but the edits: some 30 guest calls of an enabling and its end, under 1 KiB each


def last_call(notes: Sequence[str]) -> tuple[str, int | None]:
    """The purpose of the last guest call that a journal knows of, and what it returned, None if it did not yet."""
    purpose, value = "", None
    for note in notes:
        if note.startswith(_CALL):
            purpose, value = note.removeprefix(_CALL), None
        elif note.startswith(_RETURNED):
            value = int(note.removeprefix(_RETURNED), 16)
    return purpose, value


def has_table(notes: Sequence[str]) -> bool:
    """Whether the guest still has its recovery table, as far as a journal knows."""
    return next((note == _TABLE for note in reversed(notes) if note in (_TABLE, _WIPED)), False)


class JournalLog:
    """An :class:`probekit.enabling.api.EngineLog` on disk."""

    def __init__(self, journal: Journal, registered: Sequence[Registration] = ()) -> None:
        self._journal = journal
        self._batches: list[int] = []
        self._standing: dict[int, Allocation] = {}
        self._registered = set(registered)
        self._borrowed = False

    @property
    def needed(self) -> bool:
        """Something of ours is in the guest."""
        return bool(self._batches or self._standing or self._registered or self._borrowed)

    def edits(self, edits: Sequence[Edit]) -> None:
        """Before the first byte of them is written."""
        self._batches.append(self._journal.edits(edits))

    def reverted(self) -> None:
        """All edits are undone."""
        for batch in self._batches:
            self._journal.reverted(batch)
        self._batches = []

    def allocated(self, memory: Allocation) -> None:
        """Guest memory is ours."""
        self._standing[memory.addr] = memory
        self._journal.allocated(disk.Allocation(memory.kind, memory.addr, memory.size, {}))

    def freed(self, memory: Allocation) -> None:
        """And no longer."""
        self._standing.pop(memory.addr, None)
        self._journal.freed(memory.addr)

    def registered(self, items: Sequence[Registration]) -> None:
        """Before the kernel is told of them."""
        self._registered.update(items)
        self._journal.registered(items)

    def unregistered(self, items: Sequence[Registration]) -> None:
        """It has forgotten them."""
        self._registered.difference_update(items)
        self._journal.unregistered(items)

    def call_started(self, *, vcpu: int, regs: Mapping[str, int], return_addr: int, rsp: int, purpose: str) -> None:
        """A guest task is borrowed."""
        self._journal.note(f"{_CALL}{purpose}")
        self._borrowed = True
        self._journal.call_started(disk.Call(vcpu=vcpu, raw=b"", regs=regs, return_addr=return_addr, rsp=rsp))

    def call_returned(self, value: int) -> None:
        """What it was borrowed for is done."""
        self._journal.note(f"{_RETURNED}{value:#x}")

    def call_done(self) -> None:
        """It has been given back."""
        self._journal.call_done()
        self._borrowed = False

    def table(self, *, stands: bool) -> None:
        """See :class:`probekit.enabling.api.EngineLog`."""
        self._journal.note(_TABLE if stands else _WIPED)

    def contents(self) -> bytes:
        """All of it as bytes, for the guest to keep."""
        return self._journal.contents()

    def forget(self) -> None:
        """Remove the journal: the guest that it speaks of is gone."""
        self._journal.close_clean()

    def close(self, *, keep: bool = False) -> None:
        """Remove the journal when nothing of ours is left in the guest; keep it otherwise, or if asked to."""
        if keep or self.needed:
            self._journal.close()
        else:
            self._journal.close_clean()


def new_journal(spec: str, kernel: Kernel, cookie: bytes, edits: int) -> JournalLog:
    """A journal for one enabling, whose record of edits takes ``edits`` bytes.

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
    """The journals that are left for a target, oldest first. A damaged one of it raises JournalError."""
    key = target_key(spec)
    return [disk.load(path) for path in find_journals(default_dir()) if disk.load_header(path).target == key]
