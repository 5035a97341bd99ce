"""Tells the compiler the types and symbols of a guest's kernel, from BTF and the symbol table.

:class:`GuestTypes` is the :class:`probekit.lang.kernelside.KernelSource` of a guest. Modules have types of their own,
in addition to the kernel's. They are read from guest memory when a script names something that the kernel itself does
not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from probekit.errors import SymbolError, TargetError
from probekit.kernel.btf import Btf
from probekit.kernel.btf_sections import NamedKind
from probekit.kernel.c_types import CEnum, CFunction, CInt, CType, CVoid, display, strip
from probekit.kernel.tracepoints import tracepoint_params
from probekit.lang.kernelside import SourceProbe, SourceSymbol, TagKind, Unknown
from probekit.probe.names import ProbeDescription
from probekit.providers.api import KERNEL_MODULE, Function, Probe

if TYPE_CHECKING:
    from probekit.kernel.symbols import KernelSymbol
    from probekit.session.attach import Attachment

__all__ = ("GuestTypes",)

_OFFSET = CInt("int", 4, signed=True)
_KERNEL_HALF = 1 << 63
_REGISTERS = 6  # how many registers pass arguments in the System V ABI
_LEADING = {"tracepoint": 1, "marker": 2}  # registers that hold something else, before the arguments


class GuestTypes:
    """Finds types and symbols of one guest. The guest runs; it is stopped for a moment to read a module's types."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._kernel = attachment.kernel

    @property
    def lacking(self) -> str:
        """Why the kernel has no types; empty when it has: see :class:`probekit.lang.kernelside.KernelSource`."""
        if self._kernel.btf is not None:
            return ""
        error = self._kernel.btf_error
        return f"this kernel's types (BTF) are broken: {error}" if error else "this kernel carries no types (BTF)"

    def tagged(self, kind: TagKind, name: str, module: str | None) -> CType | None:
        """Return ``struct name``, ``union name`` or ``enum name``."""
        return self._named(kind, name, module)

    def typedef(self, name: str, module: str | None) -> CType | None:
        """Return the type that a typedef names."""
        return self._named("typedef", name, module)

    def enumerator(self, name: str) -> tuple[int, CEnum] | None:
        """Return the value and type of an enumerator of any enumeration."""
        return next((found for btf in self._tables(None) if (found := btf.enumerator(name)) is not None), None)

    def symbol(self, name: str, module: str | None) -> SourceSymbol | None:
        """Return a symbol. Of several with one name, the kernel's comes first."""
        wanted = "" if module == KERNEL_MODULE else module
        found = sorted(self._kernel.symbols.find(name, wanted), key=lambda symbol: symbol.module != "")
        if not found:
            return None
        symbol = found[0]
        if symbol.is_text:
            return SourceSymbol(symbol.addr, "function", self._function(symbol.module or KERNEL_MODULE, (name,)))
        btf = self._btf_of(symbol.module)
        kind = btf.find("var", name) if btf is not None else None
        return SourceSymbol(symbol.addr, "percpu" if self._is_percpu(symbol) else "data", kind)

    def prototypes(self, description: ProbeDescription) -> Iterator[SourceProbe]:
        """Yield the types of ``args[]`` of each probe that matches."""
        for probe in self._attachment.registry.match(description):
            yield SourceProbe(str(probe.name), self.arguments(probe), _REGISTERS - _LEADING.get(probe.kind, 0))

    def arguments(self, probe: Probe) -> tuple[CType, ...] | Unknown:
        """Return the types of one probe's ``args[]``, or why they are not known."""
        if not probe.in_guest:
            return ()
        if probe.marker is not None:
            return Unknown(probe.marker.refusal) if probe.marker.refusal else probe.marker.types
        if self.lacking:
            return Unknown(self.lacking)
        if probe.tracepoint is not None:
            params = tracepoint_params(probe.tracepoint, self._btf_of(probe.tracepoint.module))
            missing = Unknown("the kernel's types (BTF) do not have this tracepoint")
            return missing if params is None else tuple(param.type for param in params)
        if probe.function is None or probe.kind not in ("entry", "return"):
            return Unknown("its provider does not know them")
        return self._of_function(probe.function, probe.kind)

    def _of_function(self, function: Function, kind: str) -> tuple[CType, ...] | Unknown:
        found = self._function(function.module, (function.name, *function.aliases))
        if found is None:
            return Unknown("the kernel's types (BTF) do not have this function")
        if kind == "entry":
            return tuple(param.type for param in found.params)
        # As with dtrace, args[0] is the offset of the instruction and args[1] the returned value.
        return (_OFFSET,) if isinstance(strip(found.returns), CVoid) else (_OFFSET, found.returns)

    def shown(self, probe: Probe) -> tuple[str, ...] | None:
        """Return the types of one probe's ``args[]`` as C writes them; None when they are not known."""
        try:
            types = self.arguments(probe)
        except SymbolError:
            return None
        return None if isinstance(types, Unknown) else tuple(map(display, types))

    def _function(self, module: str, names: tuple[str, ...]) -> CFunction | None:
        btf = self._btf_of("" if module == KERNEL_MODULE else module)
        if btf is None:
            return None
        return next((found for name in names if (found := btf.function(name)) is not None), None)

    def _named(self, kind: NamedKind, name: str, module: str | None) -> CType | None:
        return next((found for btf in self._tables(module) if (found := btf.find(kind, name)) is not None), None)

    def _tables(self, module: str | None) -> Iterator[Btf]:
        """Yield the tables of types to look through, the kernel's own first."""
        if self._kernel.btf is None:
            return
        if module is None or module == KERNEL_MODULE:
            yield self._kernel.btf
        for item in self._kernel.modules if module != KERNEL_MODULE else ():
            if module in (None, item.name) and (btf := self._btf_of(item.name)) is not None:
                yield btf

    def _btf_of(self, module: str) -> Btf | None:
        """Return a module's types; None when it has none or they are damaged: the other modules still work then."""
        if not module:
            return self._kernel.btf
        try:
            if self._kernel.btf_loaded(module):
                return self._kernel.btf_of(module)
            with self._attachment.clock.paused():
                return self._kernel.btf_of(module)
        except (SymbolError, TargetError):
            return None

    def _is_percpu(self, symbol: KernelSymbol) -> bool:
        """Return whether a symbol is a per-CPU variable.

        Up to Linux 6.14 such symbols are offsets from 0 (kernel commit 9d7de2aa8b41). Later ones lie in their section.
        """
        bounds = self._kernel.symbols.range("__per_cpu_start", "__per_cpu_end")
        inside = bounds is not None and bounds[0] <= symbol.addr < bounds[1] and bounds[1] > bounds[0]
        # Absolute symbols may have any value, but an address in the lower half is never the kernel's.
        return inside or (symbol.module != "" and not symbol.addr & _KERNEL_HALF)
