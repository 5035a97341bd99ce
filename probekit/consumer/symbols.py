"""Addresses and probes by name: what ``sym()``, ``stack()``, ``%a`` and ``probefunc`` show.

    Symbols(lookup)  0xffffffff81000010  ->  "vmlinux`vfs_read+0x10"   named("func", ...)  ->  "vmlinux`vfs_read"

Without a guest there is nothing to look up, and an address is shown as itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from probekit.probe.names import ProbeName
from probekit.records import record

__all__ = ("Found", "Symbols", "probe_field")


@record
class Found:
    """A symbol that an address lies in."""

    module: str
    name: str
    offset: int


@record
class Symbols:
    """``lookup``: the kernel symbol of an address, or None; the default knows none."""

    lookup: Callable[[int], Found | None] | None = None

    def _find(self, addr: int) -> Found | None:
        return self.lookup(addr) if self.lookup is not None else None

    def address(self, addr: int) -> str:
        """``module`name+0x10``, as ``%a`` and ``stack()`` have it."""
        addr &= (1 << 64) - 1
        found = self._find(addr)
        if found is None:
            return f"0x{addr:x}"
        return f"{found.module}`{found.name}" + (f"+0x{found.offset:x}" if found.offset else "")

    def named(self, kind: str, addr: int) -> str:
        """What ``sym()``, ``func()`` (a name without its offset) and ``mod()`` show. User addresses have no names."""
        addr &= (1 << 64) - 1
        found = None if kind.startswith("u") else self._find(addr)
        if found is None:
            return f"0x{addr:x}"
        return found.module if kind == "mod" else f"{found.module}`{found.name}"

    def frames(self, data: bytes, *, user: bool = False) -> tuple[str, ...]:
        """A recorded stack: 8-byte addresses up to the first 0."""
        whole = data[: len(data) // 8 * 8]
        out: list[str] = []
        for (addr,) in struct.iter_unpack("<Q", whole):
            if not addr:
                break
            out.append(f"0x{addr:x}" if user else self.address(addr))
        return tuple(out)


def probe_field(name: ProbeName, detail: str) -> str:
    """The part of a probe's name that ``probeprov``, ``probemod``, ``probefunc`` or ``probename`` asks for."""
    parts = {"probeprov": name.provider, "probemod": name.module, "probefunc": name.function, "probename": name.name}
    return parts.get(detail) or ("" if detail in parts else str(name))
