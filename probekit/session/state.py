"""What this machine's disk knows of one guest: the lock while we hold it, the journal while we change it."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from probekit.errors import ProbekitError, SymbolError
from probekit.guest.linux import Allocation
from probekit.kernel.kernel import Kernel
from probekit.patch import journal as disk
from probekit.patch.edits import Edit
from probekit.patch.journal import Journal, JournalHeader, JournalState, Registration, default_dir, find_journals
from probekit.target.connect import parse_spec

__all__ = ("JournalLog", "boot_cookie", "has_table", "journals_of", "last_call", "new_journal", "target_key")

_CALL = "call: "
_RETURNED = "returned: "
_TABLE = "the recovery table is in the guest"
_WIPED = "the recovery table is wiped"
_ROOM = 1 << 16  # for all but the edits: some 30 guest calls of an enabling and its end, under 1 KiB each
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
# Random at every boot with CONFIG_RANDOMIZE_MEMORY (kernel commit 0483e1fa6e09, v4.8).
_RANDOM_BASES = ("page_offset_base", "vmalloc_base", "vmemmap_base")


def target_key(spec: str) -> str:
    """One name for one guest, however the user spelled the target (``gdb:`` in front of a plain one included)."""
    parsed = parse_spec(spec)
    match parsed.kind:
        case "unix":
            return f"unix:{Path(parsed.address).resolve()}"
        case "tcp":
            host = "localhost" if parsed.address in _LOOPBACK else parsed.address
            return f"tcp:{host}:{parsed.port}"
        case "gdb":
            if parsed.address.startswith("/"):
                return f"unix:{Path(parsed.address).resolve()}"
            try:
                return target_key(parsed.address)
            except ProbekitError:
                return spec
        case _:
            return spec


def boot_cookie(kernel: Kernel) -> bytes:
    """Bytes that differ after the guest booted again: its random addresses and the first task's stack canary."""
    parts = [kernel.base, *kernel.percpu_offsets[:1]]
    memory = kernel.memory
    parts += [memory.u64(addr) for name in _RANDOM_BASES if (addr := kernel.symbols.addr(name)) is not None]
    init = kernel.symbols.addr("init_task")
    if kernel.btf is not None and init is not None:
        with suppress(SymbolError):  # built without CONFIG_STACKPROTECTOR: the addresses have to do
            parts.append(memory.u64(init + kernel.btf.struct("task_struct").field("stack_canary").offset))
    return hashlib.sha256(struct.pack(f"<{len(parts)}Q", *parts)).digest()[:16]


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
