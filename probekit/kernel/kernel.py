"""Hold everything that is known of a running kernel: symbols, types, modules, and the reads that go with them.

:func:`probekit.kernel.open_kernel.open_kernel` makes one.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from functools import cached_property

from probekit.errors import SymbolError, TargetError, UnsupportedError
from probekit.kernel import exclusions, text_tables
from probekit.kernel.address_space import KernelAddressSpace
from probekit.kernel.btf import Btf
from probekit.kernel.btf_sections import BtfIndex
from probekit.kernel.exclusions import Exclusion
from probekit.kernel.image_base import KernelImage
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.markers import Marker, list_markers
from probekit.kernel.memory import KernelMemory, MemoryCopy
from probekit.kernel.metadata import parse_release, parse_witnesses
from probekit.kernel.modules import Module, list_modules, locate_module_btf, module_symbols
from probekit.kernel.percpu import CpuLayout, CurrentAccess, cpu_layout, current_access
from probekit.kernel.symbols import SymbolTable, require_symbol
from probekit.kernel.tasks import Task, read_tasks, task_addresses
from probekit.kernel.text_tables import EXCEPTION_TABLE, JUMP_TABLE, STATIC_CALLS, JumpSite, TextTable
from probekit.kernel.tracepoints import Tracepoint, count_tracepoints, list_tracepoints
from probekit.target.api import Target

__all__ = ("Kernel", "KernelBuild", "TextRange")

_MASK64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class TextRange:
    """Executable memory of the kernel or of one module."""

    start: int
    """The address of the first byte."""
    end: int
    """The address after the last byte."""
    module: str = ""
    """Empty for the kernel itself."""


@dataclass(frozen=True, slots=True)
class KernelBuild:
    """What does not change while a kernel runs: its image, symbols and types."""

    image: KernelImage
    """Where the kernel is mapped."""
    symbols: RawSymbols = field(repr=False)
    """The kernel's own symbols."""
    btf: bytes = field(repr=False)
    """The types; empty for a kernel without them."""
    witnesses: tuple[tuple[int, bytes], ...] = ()
    """(offset from the base, bytes) of read-only data that tells this build from every other."""
    btf_index: BtfIndex | None = None
    """The index of ``btf`` where it is known already."""
    from_cache: bool = False
    """Whether all this was on disk."""


class Kernel:
    """A running kernel. Methods that read guest memory need the target stopped."""

    def __init__(self, *, target: Target, address_space: KernelAddressSpace, build: KernelBuild) -> None:
        self.target = target
        self.address_space = address_space
        self.memory = KernelMemory(address_space)
        self.image = build.image
        self.from_cache = build.from_cache
        self._raw = build.symbols
        self.btf: Btf | None = None
        self.btf_error: SymbolError | None = None
        try:
            self.btf = Btf(build.btf, index=build.btf_index) if build.btf else None
        except SymbolError as error:
            # Symbols are worth having without types.
            self.btf_error = error
        self.modules: tuple[Module, ...] = ()
        self.module_error: SymbolError | None = None
        self._own_symbols = SymbolTable(build.symbols)
        self.symbols = self._own_symbols
        self._module_btf: dict[int, tuple[int, int]] = {}
        self._module_types: dict[str, Btf] = {}
        root = self._own_symbols.addr("init_top_pgt") or self._own_symbols.addr("swapper_pg_dir")
        if root is not None:
            address_space.adopt_root(root)
        self.version, self.build_id = parse_witnesses(build.witnesses)
        self.release = parse_release(self.version)
        self.refresh_modules()

    @property
    def base(self) -> int:
        """The address of ``_text``."""
        return self.image.base

    def refresh_modules(self) -> None:
        """Read the module list and symbols again. A list that is changing leaves no modules and ``module_error``."""
        head = self._own_symbols.addr("modules")
        self.modules, self.symbols, self._module_btf, self.module_error = (), self._own_symbols, {}, None
        self._module_types.clear()
        if head is None or self.btf is None:
            self.module_error = SymbolError("modules cannot be listed: no BTF or no symbol 'modules' in this kernel")
            return
        try:
            with self.memory.cached():
                modules = list_modules(self.memory, self.btf, head)
                tables = [module_symbols(self.memory, self.btf, module) for module in modules]
                types = self._own_symbols.addr("btf_modules")
                if types is not None and modules:
                    self._module_btf = locate_module_btf(self.memory, self.btf, types)
        except (SymbolError, TargetError) as error:
            self.module_error = SymbolError(f"modules cannot be listed: {error}")
            return
        self.modules = modules
        if any(table.names for table in tables):
            self.symbols = self._own_symbols.with_modules(self._raw, tables)

    def btf_loaded(self, module: str) -> bool:
        """Tell whether :meth:`btf_of` needs no guest memory: the types are loaded, or the module has none."""
        return module in self._module_types or not any(
            item.name == module and item.addr in self._module_btf for item in self.modules
        )

    def btf_of(self, module: str) -> Btf | None:
        """Return a module's own types on top of the kernel's; None when it has none. Empty name: the kernel's.

        Raises :class:`SymbolError` for types that make no sense, :class:`~probekit.errors.MemoryAccessError`.
        """
        if not module or self.btf is None:
            return self.btf if not module else None
        for item in self.modules:
            location = self._module_btf.get(item.addr) if item.name == module else None
            if location is not None and module not in self._module_types:
                self._module_types[module] = Btf(self.memory.read(*location), base=self.btf)
        return self._module_types.get(module)

    def symbol(self, name: str) -> int:
        """Return the address of a symbol. Raises :class:`SymbolError`."""
        return require_symbol(self.symbols, name)

    def find(self, *names: str) -> int | None:
        """Return the address of the first of ``names`` that exists, or None."""
        found = (self.symbols.addr(name) for name in names)
        return next((addr for addr in found if addr is not None), None)

    @cached_property
    def text(self) -> TextRange:
        """The kernel's own ``.text``. Raises :class:`SymbolError` when its bounds are not known."""
        bounds = self._own_symbols.range("_stext", "_etext") or self._own_symbols.range("_text", "_etext")
        if bounds is None or not self.image.base <= bounds[0] < bounds[1] <= self.image.end:
            raise SymbolError("the kernel's text has no bounds (_stext, _etext)")
        return TextRange(*bounds)

    def text_ranges(self) -> tuple[TextRange, ...]:
        """Return the kernel's text, then each live module's."""
        live = (m for m in self.modules if m.state == "live" and m.text_start < m.text_end)
        return (self.text, *(TextRange(m.text_start, m.text_end, m.name) for m in live))

    def read_text(self, module: str | None = None) -> tuple[MemoryCopy, ...]:
        """Read live text, one copy per range. ``module``: only that one's (empty: only the kernel's)."""
        wanted = (part for part in self.text_ranges() if module is None or part.module == module)
        return tuple(self.memory.copy(part.start, part.end) for part in wanted)

    def cpus(self) -> CpuLayout:
        """Read the per-CPU offsets, and which CPUs are possible and online now."""
        return cpu_layout(self.memory, self._own_symbols)

    @property
    def percpu_offsets(self) -> tuple[int, ...]:
        """``__per_cpu_offset[]`` up to ``nr_cpu_ids``, read now."""
        return self.cpus().offsets

    @cached_property
    def current(self) -> CurrentAccess:
        """Where code finds the running task and the CPU number (GS-relative)."""
        return current_access(self._own_symbols, self.btf)

    def exclusions(self) -> tuple[Exclusion, ...]:
        """Return the text that must not be probed, sorted by start; ranges may overlap."""
        found = exclusions.boundary_exclusions(self._own_symbols)
        with self.memory.cached():  # the list's entries lie close together
            found += exclusions.kprobe_blacklist(self.memory, self._own_symbols, self.btf)
        return tuple(sorted(found, key=lambda item: (item.start, item.end)))

    def ex_table(self) -> tuple[int, ...]:
        """Return the addresses of instructions that may fault and be fixed up, sorted, modules included."""
        return tuple(sorted(self._table_sites(EXCEPTION_TABLE)))

    def exception_entries(self) -> dict[int, tuple[int, int]]:
        """Return, by the address of each instruction that may fault, where it goes on then and the kind of fix-up."""
        found: dict[int, tuple[int, int]] = {}
        for start, data in self._read_table(EXCEPTION_TABLE):
            pairs = text_tables.relative_pairs(data, start, EXCEPTION_TABLE.entry_size)
            kinds = struct.unpack(f"<{len(pairs) * 3}I", data[: len(pairs) * EXCEPTION_TABLE.entry_size])[2::3]
            found.update((addr, (fixup, kind)) for (addr, fixup), kind in zip(pairs, kinds, strict=True))
        return found

    def jump_sites(self) -> tuple[JumpSite, ...]:
        """Return the instructions that the kernel itself rewrites, static keys and static calls, sorted."""
        sites = [JumpSite(addr, "static_key") for addr in self._table_sites(JUMP_TABLE)]
        sites += [JumpSite(addr, "static_call") for addr in self._table_sites(STATIC_CALLS)]
        return tuple(sorted(sites, key=lambda site: site.addr))

    def hidden_jumps(self) -> tuple[tuple[int, int], ...]:
        """Return jumps that the text does not show, sorted ``(from, to)``: static keys that may be on, fix-ups."""
        found: list[tuple[int, int]] = []
        for table in (JUMP_TABLE, EXCEPTION_TABLE):
            for start, data in self._read_table(table):
                found += text_tables.relative_pairs(data, start, table.entry_size)
        return tuple(sorted(found))

    def ftrace_sites(self) -> array[int]:
        """Return the addresses of the patchable nops at function entries, sorted; empty without ftrace."""
        return text_tables.ftrace_sites(self.memory, self._own_symbols, self.btf)

    def count_tracepoints(self) -> int:
        """Return how many tracepoints there are; the guest may run."""
        return count_tracepoints(self._own_symbols, self.modules, self.btf)

    def tracepoints(self, memory: KernelMemory | None = None) -> tuple[Tracepoint, ...]:
        """List every tracepoint, the kernel's own first; none for a kernel without types.

        ``memory``: another way to read kernel memory, such as the shared RAM file of a guest that runs.
        """
        memory = memory or self.memory
        with memory.cached():
            return list_tracepoints(memory, self._own_symbols, self.modules, self.btf)

    def markers(self, memory: KernelMemory | None = None) -> tuple[Marker, ...]:
        """List every static marker (vm/include/probekit/marker.h), usable or not. ``memory``: as in `tracepoints`."""
        ranges = self.text_ranges()
        return list_markers(
            memory or self.memory,
            self._own_symbols,
            self.modules,
            self.btf,
            lambda addr: any(part.start <= addr < part.end for part in ranges),
        )

    def tasks(self) -> tuple[Task, ...]:
        """Read every thread, and of each online CPU the idle task and the one that it runs, which may be on no list."""
        return read_tasks(self.memory, self._require_btf(), self.task_addresses())

    def task_addresses(self, memory: KernelMemory | None = None) -> list[int]:
        """Return the address of each of :meth:`tasks`. ``memory``: as in :meth:`tracepoints`."""
        memory = memory or self.memory
        listed = task_addresses(memory, self._require_btf(), self.symbol("init_task"))
        return [addr for addr in dict.fromkeys((*listed, *self._tasks_of_cpus(memory))) if addr]

    def _tasks_of_cpus(self, memory: KernelMemory) -> list[int]:
        """Return the idle and the running task of each CPU.

        An idle task is on no list, only in its CPU's ``runqueues``; a task that ends still runs when it has left all
        lists.
        """
        queues, layout = self._own_symbols.addr("runqueues"), self._require_btf().find_struct("rq")
        if queues is None or layout is None:
            return []
        cpus = cpu_layout(memory, self._own_symbols)
        fields = [field for name in ("idle", "curr") if (field := layout.find_field(name)) is not None]
        pointers = [cpus.offsets[cpu] + queues + field.offset for cpu in cpus.online for field in fields]
        return [memory.u64(at & _MASK64) for at in pointers]

    def _require_btf(self) -> Btf:
        if self.btf is None:
            raise UnsupportedError("this kernel carries no types (BTF)", feature="BTF")
        return self.btf

    def _table_sites(self, table: TextTable) -> list[int]:
        return [
            addr
            for start, data in self._read_table(table)
            for addr in text_tables.relative_sites(data, start, table.entry_size)
        ]

    def _read_table(self, table: TextTable) -> list[tuple[int, bytes]]:
        return text_tables.read_table(self.memory, self._own_symbols, self.modules, self.btf, table)
