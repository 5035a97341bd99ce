"""Read the code of a guest's kernel from its memory file, to check that a tracer has restored all of it.

No part of probekit is used: the guest reports where its kernel's code is in
physical memory (``/proc/iomem``), and its memory is a file on the host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vm.errors import VmError
from vm.guest import Guest

__all__ = ("KernelCode", "differences")

_CODE = re.compile(r"^\s*([0-9a-f]+)-([0-9a-f]+) : Kernel code$", re.MULTILINE)
# With QEMU's q35, memory above this address is at another place in the file.
_LOW_MEMORY = 2 << 30


@dataclass(frozen=True, slots=True)
class KernelCode:
    """The place of a guest's kernel code in physical memory."""

    guest: Guest
    start: int
    """The guest physical address of its first byte."""
    size: int
    """The size in bytes."""

    @classmethod
    def locate(cls, guest: Guest) -> KernelCode:
        """Ask the guest where its kernel's code is. Raises :class:`VmError` when it does not say."""
        found = _CODE.search(guest.check("cat /proc/iomem"))
        if found is None:
            raise VmError(f"guest {guest.name!r} does not say where its kernel's code is")
        start, last = (int(text, 16) for text in found.groups())
        if last >= _LOW_MEMORY:
            raise VmError(f"the kernel's code at {start:#x} is above the memory that can be read from the file")
        return cls(guest, start, last + 1 - start)

    def read(self) -> bytes:
        """Return the code as it is now."""
        with self.guest.ram.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.size)


def differences(before: bytes, after: bytes) -> list[int]:
    """Return the offsets of bytes that differ."""
    if before == after:
        return []
    return [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
