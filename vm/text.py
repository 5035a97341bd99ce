"""A guest's kernel text, read from its memory file: what a tracer must leave as it found it.

Nothing of probekit is asked: the guest itself says where its kernel's code lies
in physical memory (``/proc/iomem``), and its memory is a file on the host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vm.errors import VmError
from vm.guest import Guest

__all__ = ("KernelText", "differences")

_CODE = re.compile(r"^\s*([0-9a-f]+)-([0-9a-f]+) : Kernel code$", re.MULTILINE)
# QEMU's q35 puts what is above this address elsewhere in the file.
_LOW_MEMORY = 2 << 30


@dataclass(frozen=True, slots=True)
class KernelText:
    """Where the code is: ``start`` and ``size`` in physical memory."""

    guest: Guest
    start: int
    size: int

    @classmethod
    def locate(cls, guest: Guest) -> KernelText:
        """Ask the guest."""
        found = _CODE.search(guest.check("cat /proc/iomem"))
        if found is None:
            raise VmError(f"guest {guest.name!r} does not say where its kernel's code is")
        start, last = (int(text, 16) for text in found.groups())
        if last >= _LOW_MEMORY:
            raise VmError(f"the kernel's code at {start:#x} is above the memory that can be read from the file")
        return cls(guest, start, last + 1 - start)

    def read(self) -> bytes:
        """The code as it is now."""
        with self.guest.ram.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.size)


def differences(before: bytes, after: bytes) -> list[int]:
    """The offsets of bytes that differ."""
    if before == after:
        return []
    return [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
