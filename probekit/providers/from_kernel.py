"""What the providers offer for one kernel: its functions, tracepoints, markers and variables."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from probekit.errors import SymbolError, TargetError
from probekit.guest.memory import PauseClock
from probekit.guest.ramtext import RamText
from probekit.kernel.kernel import Kernel
from probekit.kernel.markers import KERNEL_MARKERS, MARKER_SYMBOL, Marker
from probekit.kernel.memory import KernelMemory
from probekit.kernel.tracepoints import Tracepoint
from probekit.providers.api import KERNEL_MODULE
from probekit.providers.fbt import FunctionTable, functions
from probekit.providers.mem import KernelVariable

__all__ = (
    "GuestMarkers",
    "GuestTracepoints",
    "Looking",
    "find_variable",
    "guest_functions",
)

_Found = TypeVar("_Found")


def guest_functions(kernel: Kernel) -> FunctionTable:
    """Every function of the kernel and its modules; init text, which is gone, left out."""
    gone = [r for pair in (("__init_begin", "__init_end"),) if (r := kernel.symbols.range(*pair)) is not None]
    return functions(kernel.symbols.text(), gone)


@dataclass(frozen=True, slots=True)
class Looking:
    """Ways to kernel memory: ``quick`` reads it while the guest runs, where its RAM is a shared file."""

    clock: PauseClock
    quick: RamText | None

    def read(self, find: Callable[[KernelMemory | None], _Found]) -> _Found:
        """What ``find`` makes of kernel memory; the guest is paused when that is the only way, or the better one."""
        if self.quick is not None:
            self.quick.invalidate()
            with suppress(SymbolError, TargetError):  # a list in flux, perhaps: it stands still below
                return find(KernelMemory(self.quick))
        with self.clock.paused():
            return find(None)


class GuestTracepoints:
    """See :class:`probekit.providers.tracepoint.Tracepoints`."""

    def __init__(self, kernel: Kernel, looking: Looking) -> None:
        self._kernel = kernel
        self._looking = looking
        self.count = kernel.count_tracepoints()

    def may_exist(self, name: str) -> bool:
        """Whether the kernel or a module has a variable of a tracepoint's name."""
        return self._kernel.symbols.addr(f"__tracepoint_{name}") is not None

    def all(self) -> tuple[Tracepoint, ...]:
        """Every tracepoint."""
        return self._looking.read(self._kernel.tracepoints)


class GuestMarkers:
    """See :class:`probekit.providers.marker.Markers`."""

    def __init__(self, kernel: Kernel, looking: Looking) -> None:
        self._kernel = kernel
        self._looking = looking

    @cached_property
    def likely(self) -> bool:
        """Whether the kernel has their section, or a module a variable that is named as a marker's."""
        symbols = self._kernel.symbols
        return symbols.addr(KERNEL_MARKERS) is not None or symbols.in_modules(MARKER_SYMBOL)

    def all(self) -> tuple[Marker, ...]:
        """Every marker."""
        return self._looking.read(self._kernel.markers)


def find_variable(kernel: Kernel, name: str) -> KernelVariable | None:
    """A symbol of the kernel or of a module, and the room up to the next one."""
    addr = kernel.symbols.addr(name)
    if addr is None:
        return None
    found = kernel.symbols.lookup(addr)
    if found is None:
        return KernelVariable(addr, 0, KERNEL_MODULE)
    symbol, offset = found
    return KernelVariable(addr, symbol.size - offset, symbol.module or KERNEL_MODULE)
