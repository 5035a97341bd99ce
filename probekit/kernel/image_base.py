"""Find where the Linux kernel is mapped, with nothing but memory.

x86-64 Linux maps its image somewhere in the 1 GiB above
``__START_KERNEL_map`` (``0xffffffff80000000``), aligned to 2 MiB
(``CONFIG_PHYSICAL_ALIGN``); KASLR chooses the step. So the base is the first
mapped step, and the image is the run of mapped steps that begins there
(modules live 512 MiB or 1 GiB further up and never touch it).

One witness is not enough for an untrusted guest: the interrupt table's
handlers must lie inside the image, and the image must say "Linux version".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from probekit.errors import SymbolError
from probekit.kernel.memory import KernelMemory, MemoryCopy

__all__ = (
    "KERNEL_MAP",
    "KERNEL_MAP_SIZE",
    "STEP",
    "KernelImage",
    "find_banner",
    "find_kernel_image",
    "gate_handlers",
    "idt_bases",
    "mapped_steps",
)

KERNEL_MAP = 0xFFFFFFFF80000000
"""``__START_KERNEL_map``: where the kernel's range begins."""
KERNEL_MAP_SIZE = 1 << 30
STEP = 2 << 20
"""The alignment of the kernel's image in bytes."""

# free_kernel_image_pages() may unmap what was .init (commit c40a56a7818c, v4.19): holes of a few steps.
_MAX_GAP = 4
_GATES = 32  # the processor's own exceptions
# Several times the largest distribution kernel; a guest that maps the whole GiB shall not make us read it.
_MAX_IMAGE = 256 << 20
_HINT = "is the guest still in its firmware or boot loader? Let it boot Linux and attach again"
_BANNER = re.compile(rb"Linux version [0-9][\x20-\x7e]{8,480}\n\x00")


@dataclass(frozen=True, slots=True)
class KernelImage:
    """Where the kernel's image is mapped."""

    base: int
    """The address of ``_text``."""
    end: int
    """Where the mapped image ends, a multiple of 2 MiB."""
    handlers: tuple[int, ...] = ()
    """Addresses of the exception handlers, from the interrupt table."""

    def holds(self, addr: int) -> bool:
        """Tell whether an address is in the image."""
        return self.base <= addr < self.end

    def scan_order(self) -> tuple[tuple[int, int], ...]:
        """Return ``(start, end)`` ranges of the image, the likeliest place of read-only data first.

        Entry code is linked last in .text and .rodata follows .text
        (arch/x86/kernel/vmlinux.lds.S), so what follows the handlers comes first.
        """
        # The median: a gate that Linux never set still points into .init.text (early_idt_handler_array).
        ordered = sorted(self.handlers) or [self.base]
        split = ordered[len(ordered) // 2] & -STEP
        split = min(max(split, self.base), self.end)
        return tuple(part for part in ((split, self.end), (self.base, split)) if part[0] < part[1])


def mapped_steps(memory: KernelMemory) -> tuple[int, ...]:
    """Return the 2 MiB steps of the kernel's range whose first bytes can be read."""
    steps = range(KERNEL_MAP, KERNEL_MAP + KERNEL_MAP_SIZE, STEP)
    found = memory.read_many([(addr, 8) for addr in steps])
    return tuple(addr for addr, data in zip(steps, found, strict=True) if data is not None)


def idt_bases(registers_text: str) -> tuple[int, ...]:
    """Return the IDT bases in the text of QEMU's ``info registers [-a]``, each once."""
    return tuple(dict.fromkeys(int(m, 16) for m in re.findall(r"^IDT=\s*([0-9a-f]{16})\b", registers_text, re.M)))


def gate_handlers(table: bytes) -> tuple[int, ...]:
    """Return the handler addresses of the 16-byte gates in ``table`` that are present.

    A gate is offset[15:0], selector, ist/type, offset[31:16], offset[63:32], 0 (Intel SDM vol. 3, section 6.14.1).
    """
    handlers = []
    for at in range(0, len(table) - 15, 16):
        gate = table[at : at + 16]
        if gate[5] & 0x80:
            handlers.append(
                int.from_bytes(gate[0:2], "little")
                | int.from_bytes(gate[6:8], "little") << 16
                | int.from_bytes(gate[8:12], "little") << 32
            )
    return tuple(handlers)


def find_kernel_image(memory: KernelMemory, *, idts: Iterable[int] = ()) -> KernelImage:
    """Find the kernel's image. ``idts``: base addresses of interrupt tables, where the monitor shows them.

    Raises :class:`SymbolError`, which says what is missing.
    """
    steps = mapped_steps(memory)
    if not steps:
        raise SymbolError(
            f"nothing is mapped in {KERNEL_MAP:#x}..+1 GiB: no x86-64 Linux kernel is running here", hint=_HINT
        )
    base = steps[0]
    end = base
    for step in steps:
        if step - end > _MAX_GAP * STEP or step - base >= _MAX_IMAGE:
            break
        end = step + STEP
    handlers = _exception_handlers(memory, idts)
    found = KernelImage(base=base, end=end, handlers=handlers)
    outside = [addr for addr in handlers if not found.holds(addr)]
    if outside:
        raise SymbolError(
            f"interrupt handler {outside[0]:#x} is outside of {base:#x}..{end:#x}: not a Linux kernel's layout",
            hint=_HINT,
        )
    return found


def _exception_handlers(memory: KernelMemory, idts: Iterable[int]) -> tuple[int, ...]:
    """Read the exception handlers of the first readable table; empty when no table is known."""
    bases = [idt for idt in idts if idt]
    for table in memory.read_many([(idt, 16 * _GATES) for idt in bases]):
        if table is not None:
            handlers = gate_handlers(table)
            if not handlers:
                raise SymbolError("the interrupt table has no present gate: no kernel is running here", hint=_HINT)
            return handlers
    return ()


def find_banner(copy: MemoryCopy) -> tuple[int, bytes] | None:
    """Return the address and the text of ``linux_banner`` in a copy of the image, or None.

    A kernel may hold a second banner that was linked before the build got its
    number ("... # SMP"); the real one has it ("... #1 SMP").
    """
    found = None
    for match in islice(_BANNER.finditer(copy.data), 8):
        if re.search(rb"#[0-9]", match.group()):
            found = match
            break
        found = found or match
    return (copy.start + found.start(), found.group()[:-1]) if found else None
