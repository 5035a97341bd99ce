"""Unwind the kernel stack of a stopped CPU from the host, by the kernel's own unwind tables (ORC)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from probekit.errors import SymbolError, UnsupportedError
from probekit.kernel.kernel import Kernel
from probekit.kernel.orc import OrcTable, OrcUnwinder, ReadMemory, orc_layout
from probekit.target.api import Regs

__all__ = ("GuestStacks",)

_PAGE = 4096
_CHUNK = 1 << 20
_MAX_TABLE = 16 << 20  # bytes
_ENTRY = 6  # bytes of a struct orc_entry
_REGISTERS = ("rip", "rsp", "rbp", "r10", "r13", "rdx", "rdi")


class _KernelMemory(Protocol):
    """Reads kernel memory; None where it is not mapped."""

    def read(self, addr: int, size: int) -> bytes | None: ...


class GuestStacks:
    """Unwinds the kernel stacks of stopped CPUs."""

    def __init__(self, kernel: Kernel, memory: _KernelMemory) -> None:
        """Read through ``memory``, which must look pages up again after the guest has run."""
        self._kernel = kernel
        self._memory = memory
        self._unwinder: OrcUnwinder | None = None

    def load(self) -> None:
        """Read the tables, some megabytes, now and not at the first use. Raises :class:`UnsupportedError`."""
        self._load()

    def _load(self) -> OrcUnwinder:
        if self._unwinder is None:
            self._unwinder = self._make()
        return self._unwinder

    def frames(self, regs: Regs, most: int, *, skip: int = 0) -> list[int]:
        """Return ``rip`` and the return addresses of its callers, at most ``most``, without the first ``skip``.

        The list is empty in user mode. Raises :class:`UnsupportedError` when the kernel has no unwind tables.
        """
        if regs.in_user_mode:
            return []
        unwinder = self._load()
        known = {name: regs[name] for name in _REGISTERS}
        return list(islice(unwinder.callers(known, self._reader()), skip, skip + most))

    def _reader(self) -> ReadMemory:
        """Return a reader that reads whole pages, as each single word would be a request to the stub."""
        pages: dict[int, bytes | None] = {}

        def read(addr: int, size: int) -> bytes | None:
            page, at = addr & -_PAGE, addr % _PAGE
            if at + size > _PAGE:
                return self._memory.read(addr, size)
            if page not in pages:
                pages[page] = self._memory.read(page, _PAGE)
            data = pages[page]
            return None if data is None else data[at : at + size]

        return read

    def _make(self) -> OrcUnwinder:
        kernel = self._kernel
        if kernel.btf is None or kernel.btf.find_struct("orc_entry") is None:
            raise UnsupportedError("stack() needs the kernel's unwind tables (ORC) and types", feature="stack")
        layout = orc_layout(kernel.btf.struct("orc_entry"))
        ips = kernel.symbols.range("__start_orc_unwind_ip", "__stop_orc_unwind_ip")
        entries = kernel.symbols.addr("__start_orc_unwind")
        if ips is None or entries is None:
            raise UnsupportedError("stack() needs the kernel's unwind tables (ORC)", feature="stack")
        count = (ips[1] - ips[0]) // 4
        table = OrcTable(ips[0], self._read(ips[0], 4 * count), self._read(entries, _ENTRY * count), layout)
        tables = [(kernel.text.start, kernel.text.end, table)]
        for start, end, where, entries, count in self._modules():
            one = OrcTable(where, self._read(where, 4 * count), self._read(entries, _ENTRY * count), layout)
            tables.append((start, end, one))
        return OrcUnwinder(tables)

    def _modules(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield for each module the start and end of its text, the addresses of its two tables, and their entries."""
        if self._kernel.btf is None:
            return
        try:
            module = self._kernel.btf.struct("module")
            fields = [module.field(f"arch.{name}").offset for name in ("orc_unwind_ip", "orc_unwind", "num_orcs")]
        except SymbolError:
            return
        for one in self._kernel.modules:
            words = [self._read(one.addr + at, size) for at, size in zip(fields, (8, 8, 4), strict=True)]
            where, entries, count = (int.from_bytes(word, "little") for word in words)
            if 0 < count < _MAX_TABLE // _ENTRY:
                yield one.text_start, one.text_end, where, entries, count

    def _read(self, addr: int, size: int) -> bytes:
        if not 0 < size <= _MAX_TABLE:
            raise UnsupportedError(f"the kernel's unwind tables would have {size} bytes", feature="stack")
        parts = (self._memory.read(addr + at, min(_CHUNK, size - at)) for at in range(0, size, _CHUNK))
        return b"".join(_present(parts))


def _present(parts: Iterable[bytes | None]) -> Iterator[bytes]:
    for part in parts:
        if part is None:
            raise UnsupportedError("the kernel's unwind tables cannot be read", feature="stack")
        yield part
