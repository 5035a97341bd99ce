"""Names addresses and probes for ``sym()``, ``stack()``, ``%a`` and ``probefunc``.

    Symbols(lookup)  0xffffffff81000010  ->  "vmlinux`vfs_read+0x10"   named("func", ...)  ->  "vmlinux`vfs_read"

An address without a symbol, and every address in a run without a guest, is shown in hexadecimal.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from probekit.probe.names import ProbeName
from probekit.records import record

__all__ = ("SymbolAt", "Symbols", "probe_field")


@record
class SymbolAt:
    """A symbol and a place in it."""

    module: str
    name: str
    offset: int
    """Bytes from the symbol's start."""


@record
class Symbols:
    """Names the addresses of one kernel."""

    lookup: Callable[[int], SymbolAt | None] | None = None
    """Returns the kernel symbol at an address, or None. Without it no address has a name."""

    def _find(self, addr: int) -> SymbolAt | None:
        return self.lookup(addr) if self.lookup is not None else None

    def address(self, addr: int) -> str:
        """Return ``module`name+0x10``, as ``%a`` and ``stack()`` show an address."""
        addr &= (1 << 64) - 1
        found = self._find(addr)
        if found is None:
            return f"0x{addr:x}"
        return f"{found.module}`{found.name}" + (f"+0x{found.offset:x}" if found.offset else "")

    def named(self, kind: str, addr: int) -> str:
        """Return the name of an address by ``sym()``, ``func()`` (both without an offset) or ``mod()``.

        ``kind``: the name of that D function. Addresses in user programs are returned in hexadecimal.
        """
        addr &= (1 << 64) - 1
        found = None if kind.startswith("u") else self._find(addr)
        if found is None:
            return f"0x{addr:x}"
        return found.module if kind == "mod" else f"{found.module}`{found.name}"

    def frames(self, data: bytes, *, user: bool = False) -> tuple[str, ...]:
        """Name the frames of a recorded stack: 8-byte addresses up to the first 0."""
        whole = data[: len(data) // 8 * 8]
        out: list[str] = []
        for (addr,) in struct.iter_unpack("<Q", whole):
            if not addr:
                break
            out.append(f"0x{addr:x}" if user else self.address(addr))
        return tuple(out)


def probe_field(name: ProbeName, detail: str) -> str:
    """Return a part of a probe's name. ``detail``: ``probeprov``, ``probemod``, ``probefunc`` or ``probename``."""
    parts = {"probeprov": name.provider, "probemod": name.module, "probefunc": name.function, "probename": name.name}
    return parts.get(detail) or ("" if detail in parts else str(name))
