"""Finds recovery tables in a guest: copies of the journal, for when the journal is on another machine."""

from __future__ import annotations

from collections.abc import Iterator

from probekit.errors import JournalError
from probekit.guest.kernel_text import KernelText
from probekit.kernel.kernel import Kernel
from probekit.kernel.page_tables import PhysicalMemory, mapped_pages
from probekit.patch.journal import Journal, default_dir
from probekit.patch.journal_state import JournalState, parse
from probekit.patch.recovery_table import HEADER_SIZE, Header, read_header
from probekit.target.api import Target

__all__ = ("adopt_tables", "find_tables")

# x86-64 kernels give modules the addresses from the end of the kernel image up to this one.
_MODULES_END = 0xFFFFFFFFFF000000
_FRAMES_PER_READ = 4096


def find_tables(target: Target, kernel: Kernel) -> list[Header]:
    """Return the headers of recovery tables in executable memory; none where page tables cannot be read.

    The guest is stopped.
    """
    tables = kernel.address_space.page_table_root()
    if tables is None or not isinstance(target, PhysicalMemory):
        return []
    with target.physical_memory():
        frames = [frame for _, frame in mapped_pages(target, tables, kernel.symbol("_end"), _MODULES_END)]
        found = [
            read_header(page)
            for start in range(0, len(frames), _FRAMES_PER_READ)
            for page in target.read_many([(frame, HEADER_SIZE) for frame in frames[start : start + _FRAMES_PER_READ]])
            if page is not None
        ]
    return [header for header in found if header is not None]


def adopt_tables(target: Target, kernel: Kernel, cookie: bytes, known: list[JournalState]) -> Iterator[JournalState]:
    """Copy the journals in the guest that are not ``known`` to this machine's disk, and yield them.

    ``cookie``: the :func:`probekit.session.identity.boot_cookie` of this boot. Raises :class:`JournalError` for a
    damaged table when no journal of this boot is known.
    """
    known_owners = {(s.header.host_pid, s.header.host_start) for s in known if s.header.cookie == cookie}
    text = KernelText(target, kernel.address_space, kernel.symbol("init_task"))
    for header in find_tables(target, kernel):
        data = text.read_many([(header.addr, header.size)])[0]
        if data is None or not header.fits(data):
            if known_owners:
                continue  # the journal on disk is used instead
            raise JournalError(
                f"the recovery table in the guest at {header.addr:#x} is damaged", path="", hint="reboot the guest"
            )
        owner = parse(data).header
        if owner.cookie == cookie and (owner.host_pid, owner.host_start) not in known_owners:
            yield Journal.adopt(default_dir(), data)
