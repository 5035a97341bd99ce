"""Finds recovery tables in a guest: copies of the journal, for when the journal is on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from probekit.errors import JournalError
from probekit.kernel.kernel import Kernel
from probekit.kernel.page_tables import PhysicalMemory, mapped_pages
from probekit.patch.edits import TextMemory
from probekit.patch.journal import Journal, default_dir
from probekit.patch.journal_payloads import JournalHeader
from probekit.patch.journal_state import JournalState, load, parse
from probekit.patch.recovery_table import HEADER_SIZE, Header, read_header
from probekit.target.api import Target

__all__ = ("FoundTable", "adopt_tables", "find_tables", "with_table")

# x86-64 kernels give modules the addresses from the end of the kernel image up to this one.
_MODULES_END = 0xFFFFFFFFFF000000
_FRAMES_PER_READ = 4096


class FoundTable(NamedTuple):
    """A recovery table's header in guest memory."""

    where: int
    """Virtual address of the header."""
    header: Header
    """What it says. It may be forged."""


def find_tables(target: Target, kernel: Kernel) -> list[FoundTable]:
    """Return the headers of recovery tables in executable memory; none where page tables cannot be read.

    The guest is stopped.
    """
    tables = kernel.address_space.page_table_root()
    if tables is None or not isinstance(target, PhysicalMemory):
        return []
    found: list[FoundTable] = []
    with target.physical_memory():
        pages = list(mapped_pages(target, tables, kernel.symbol("_end"), _MODULES_END))
        for start in range(0, len(pages), _FRAMES_PER_READ):
            part = pages[start : start + _FRAMES_PER_READ]
            contents = target.read_many([(frame, HEADER_SIZE) for _, frame in part])
            headers = [read_header(page) if page is not None else None for page in contents]
            found += [FoundTable(addr, head) for (addr, _), head in zip(part, headers, strict=True) if head is not None]
    return found


def adopt_tables(
    found: Sequence[FoundTable], text: TextMemory, key: str, cookie: bytes, known: Sequence[JournalState]
) -> list[JournalState]:
    """Return the journals of this guest, oldest first: those ``known`` and those that only its memory has.

    The journal of a table whose journal is not known is written to this machine's disk. A known journal whose table
    stands lists at least what its table lists (:mod:`probekit.session.presence`).
    ``found``: by :func:`find_tables`. ``text``: memory of the guest, which is stopped. ``key``: the guest's
    :func:`probekit.session.identity.target_key`. ``cookie``: the :func:`probekit.session.identity.boot_cookie` of this
    boot. Raises :class:`JournalError` for a damaged table when no journal of this boot is known.
    """
    states = {_writer(state.header): state for state in known}
    here = any(state.header.cookie == cookie for state in known)
    result = list(known)
    for where, header in found:
        data = text.read_many([(header.addr, header.size)])[0]
        if data is None or not header.fits(data):
            if here:
                continue  # the journal on disk is used instead
            raise JournalError(
                f"the recovery table in the guest at {header.addr:#x} is damaged", path="", hint="reboot the guest"
            )
        table = parse(data)
        if table.header.cookie != cookie:
            continue
        mine = states.get(_writer(table.header))
        if mine is None:
            result.append(Journal.adopt(default_dir(), data, where, key))
        else:
            result[result.index(mine)] = with_table(mine, table, where)
    return result


def _writer(header: JournalHeader) -> tuple[object, ...]:
    """Return what one journal and its copies have in common, and no other journal."""
    return (header.cookie, header.token or (header.host_pid, header.host_start))


def with_table(journal: JournalState, table: JournalState, where: int) -> JournalState:
    """Add to a journal what its table, which stands at ``where``, lists and the journal does not. Returns the whole.

    The journal may have noted the end of these things, and a snapshot from before their end was loaded since. Calls are
    left out: a table is never written during one.
    """
    batches = {batch.edits for batch in journal.batches}
    edits = [batch.edits for batch in table.batches if batch.edits not in batches]
    memory = [item for item in table.allocations if item not in journal.allocations]
    items = [item for item in table.registrations if item not in journal.registrations]
    if not (edits or memory or items or journal.table != where):
        return journal
    log = Journal.reopen(journal)
    try:
        for allocation in memory:
            log.allocated(allocation)
        if items:
            log.registered(items)
        for batch in edits:
            log.edits(batch)
        log.table_written(where)
    finally:
        log.close()
    return load(journal.path)
