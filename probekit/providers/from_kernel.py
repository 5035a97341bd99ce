"""Give the providers what they publish of one kernel: its functions, tracepoints, markers and variables."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from probekit.errors import SymbolError, TargetError
from probekit.guest.memory import PauseClock
from probekit.guest.ram_reader import RamReader
from probekit.kernel.kernel import Kernel
from probekit.kernel.markers import KERNEL_MARKERS, MARKER_SYMBOL, Marker
from probekit.kernel.memory import KernelMemory
from probekit.kernel.tracepoints import Tracepoint
from probekit.providers.api import KERNEL_MODULE
from probekit.providers.function_table import FunctionTable, function_table
from probekit.providers.mem import KernelVariable

__all__ = (
    "GuestMarkers",
    "GuestTracepoints",
    "LiveMemory",
    "find_variable",
    "guest_functions",
)

_Found = TypeVar("_Found")


def guest_functions(kernel: Kernel) -> FunctionTable:
    """Return every function of the kernel and its modules, without init text, which is freed after boot."""
    init = kernel.symbols.range("__init_begin", "__init_end")
    return function_table(kernel.symbols.text_rows(), () if init is None else (init,))


@dataclass(frozen=True, slots=True)
class LiveMemory:
    """Kernel memory, read while the guest runs where that is possible."""

    clock: PauseClock
    """Pauses the guest."""
    ram: RamReader | None
    """Reads kernel memory while the guest runs, where its RAM is a shared file."""

    def read(self, find: Callable[[KernelMemory | None], _Found]) -> _Found:
        """Return what ``find`` makes of kernel memory; None as its argument stands for the paused guest's memory.

        The guest is paused where its RAM is no shared file, and when reading it while it runs has failed.
        """
        if self.ram is not None:
            self.ram.invalidate()
            with suppress(SymbolError, TargetError):  # a list may be changing; it stands still below
                return find(KernelMemory(self.ram))
        with self.clock.paused():
            return find(None)


class GuestTracepoints:
    """See :class:`probekit.providers.tracepoint.Tracepoints`."""

    def __init__(self, kernel: Kernel, memory: LiveMemory) -> None:
        self._kernel = kernel
        self._memory = memory
        self.count = kernel.count_tracepoints()

    def may_exist(self, name: str) -> bool:
        """Tell whether the kernel or a module has the variable of a tracepoint with this name."""
        return self._kernel.symbols.addr(f"__tracepoint_{name}") is not None

    def all(self) -> tuple[Tracepoint, ...]:
        """Read every tracepoint."""
        return self._memory.read(self._kernel.tracepoints)


class GuestMarkers:
    """See :class:`probekit.providers.marker.Markers`."""

    def __init__(self, kernel: Kernel, memory: LiveMemory) -> None:
        self._kernel = kernel
        self._memory = memory

    @cached_property
    def may_exist(self) -> bool:
        """Whether the kernel has a section of markers, or a module a variable with the name of one."""
        symbols = self._kernel.symbols
        return symbols.addr(KERNEL_MARKERS) is not None or symbols.in_modules(MARKER_SYMBOL)

    def all(self) -> tuple[Marker, ...]:
        """Read every marker."""
        return self._memory.read(self._kernel.markers)


def find_variable(kernel: Kernel, name: str) -> KernelVariable | None:
    """Return a variable of the kernel or of a module, and the room up to the next symbol; None when there is none."""
    addr = kernel.symbols.addr(name)
    if addr is None:
        return None
    found = kernel.symbols.lookup(addr)
    if found is None:
        return KernelVariable(addr, 0, KERNEL_MODULE)
    symbol, offset = found
    return KernelVariable(addr, symbol.size - offset, symbol.module or KERNEL_MODULE)
