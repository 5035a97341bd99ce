"""Attaches to a guest: turns a target string into an :class:`Attachment`, on which programs can run."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from probekit.enabling.syscall_returns import SystemCalls
from probekit.enabling.text_facts import gather_text
from probekit.errors import GuestError, MemoryAccessError, ProbekitError, SymbolError, TargetError
from probekit.guest.facts import GuestFacts
from probekit.guest.find_facts import find_guest_facts, is_emulated
from probekit.guest.health import LivenessMonitor, check_events, check_status, has_panicked, panic_error
from probekit.guest.kernel_text import KernelText
from probekit.guest.linux import Allocation
from probekit.guest.memory import DataMemory, PauseClock, RamData, StubData
from probekit.guest.process_page_tables import ProcessPageTables
from probekit.guest.ram_reader import RamReader
from probekit.guest.safe_loads import SafeLoads
from probekit.guest.stacks import GuestStacks
from probekit.kernel.kernel import Kernel
from probekit.kernel.memory import KernelMemory
from probekit.kernel.open_kernel import open_kernel
from probekit.kernel.syscalls import find_dispatchers, syscall_numbers
from probekit.patch.jump_windows import side_entries
from probekit.patch.sites import TextFacts
from probekit.providers.api import Function
from probekit.providers.from_kernel import GuestMarkers, GuestTracepoints, LiveMemory, find_variable, guest_functions
from probekit.providers.function_table import FunctionTable
from probekit.providers.registry import Registry, make_registry
from probekit.session.identity import boot_cookie, target_key
from probekit.session.journal_log import journals_of
from probekit.session.lock import Lock, acquire
from probekit.session.signals import Interrupts
from probekit.session.table_scan import find_tables
from probekit.target.api import Target
from probekit.target.connect import connect, parse_spec
from probekit.target.discovery import find_qemu
from probekit.target.guest_ram import GuestRam, parse_ram_ranges, parse_ram_spans

if TYPE_CHECKING:
    from probekit.target.qmp import Qmp

__all__ = ("AttachOptions", "Attachment", "attach")

_PAGE = 4096
_LA57 = 1 << 12
_MAX_SINGLE_READS = 2000  # to read more functions than this, whole text sections are read


def _silent(_: str) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """The options of :func:`attach`."""

    symbols: Path | None = None
    """An ELF, System.map or kallsyms file; None to read the symbols from the guest."""
    cache: bool = True
    """Whether to use the symbol cache on disk."""
    ram: str | None = None
    """The guest's shared RAM file; None to look for it, ``none`` to do without."""
    progress: Callable[[str], None] = _silent
    """Receives a line before each slow step."""
    timeout: float = 5.0
    """Seconds for connecting."""
    qmp: str | None = None
    """QEMU's QMP socket, which reports resets and panics at once."""


class Attachment:
    """Holds the connection to a guest, and everything that was found out about it.

    The guest runs between operations. This is a context manager; leaving it detaches from the guest.
    """

    def __init__(self, spec: str, target: Target, kernel: Kernel, lock: Lock, options: AttachOptions) -> None:
        self.spec = spec
        """The target, as the user wrote it."""
        self.target = target
        self.kernel = kernel
        self.clock = PauseClock(target)
        """Pauses the guest, and measures for how long it was paused."""
        self.interrupts = Interrupts()
        self.guest_cookie = boot_cookie(kernel)
        """Bytes that identify this boot of the guest."""
        self.progress = options.progress
        self._lock = lock
        self._options = options
        self.ram = self._open_ram()
        tables = kernel.address_space.page_table_root()
        image = range(kernel.base, kernel.find("_end") or kernel.base)
        self._ram_text = RamReader(self.ram, tables, image) if self.ram and tables else None
        self.text = KernelText(target, kernel.address_space, kernel.symbol("init_task"), self._ram_text)
        reader = self._caching_reader()
        levels = 5 if target.regs(target.vcpus()[0]).values.get("cr4", 0) & _LA57 else 4
        self.safe_loads = SafeLoads(kernel.address_space, self.clock, self._ram_spans, levels, reader)
        """Reads kernel memory for clauses that are evaluated on the host."""
        self._qmp = _open_qmp(options)
        self.stacks = GuestStacks(kernel, self.safe_loads)
        self._liveness = LivenessMonitor(self._ticks, self.same_boot, self.panicked)
        self.attach_pause = 0.0
        """How many seconds the guest was stopped for while we attached."""

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Let the guest run and close the connection. Safe to call twice."""
        try:
            with self.interrupts:
                self.target.detach()
        finally:
            if self.ram is not None:
                self.ram.close()
            if self._qmp is not None:
                self._qmp.close()
            self._lock.release()

    @cached_property
    def functions(self) -> FunctionTable:
        """The functions of the guest's kernel, from its symbols. The guest runs while they are read."""
        return guest_functions(self.kernel)

    @cached_property
    def registry(self) -> Registry:
        """All probes of this guest."""
        memory = LiveMemory(self.clock, self._caching_reader())
        return make_registry(
            self.functions,
            self.read_code,
            GuestTracepoints(self.kernel, memory),
            lambda name: find_variable(self.kernel, name),
            GuestMarkers(self.kernel, memory),
        )

    @cached_property
    def facts(self) -> GuestFacts:
        """What the engines need to know of the guest's kernel. Read at first use, in one pause."""
        with self.clock.paused():
            return find_guest_facts(self.kernel, emulated=is_emulated(self.target))

    @cached_property
    def text_facts(self) -> TextFacts:
        """What site analysis needs to know of the kernel's text. Read at first use, in one pause."""
        with self.clock.paused():
            return gather_text(self.kernel, self.text.read_many)

    @cached_property
    def side_entries(self) -> tuple[int, ...]:
        """The addresses in the middle of a function that another function jumps to. Finding them takes 1 or 2 s."""
        places = [(function.addr, function.size) for function in self.functions]
        places += [(start, end - start) for function in self.functions for start, end in function.cold]
        code = self.read_code(places)
        found = [(addr, text) for (addr, _), text in zip(places, code, strict=True) if text is not None]
        return side_entries(found, self.text_facts.starts)

    def _open_ram(self) -> GuestRam | None:
        """Open the guest's RAM as a shared file; None where there is no such file. The guest is stopped."""
        if self._options.ram == "none":
            return None
        found = find_qemu(parse_spec(self.spec))
        path = self._options.ram or (found.memory_path if found is not None and found.memory_shared else None)
        if path is None:
            return None
        try:
            layout = self.target.monitor("info mtree -f")
            return GuestRam(path, parse_ram_ranges(layout, (found and found.memory_backend) or Path(path).name))
        except ProbekitError as error:
            if self._options.ram:
                raise
            self.progress(f"guest RAM file {path} is not used: {error}")
            return None

    def _caching_reader(self) -> RamReader | None:
        return self._ram_text.caching_reader() if self._ram_text is not None else None

    def _ram_spans(self) -> tuple[tuple[int, int], ...] | None:
        """Ask the hypervisor where physical memory is RAM; None when it does not answer. The guest is stopped."""
        try:
            return parse_ram_spans(self.target.monitor("info mtree -f")) or None
        except ProbekitError:
            return None

    def same_boot(self) -> bool:
        """Return whether the kernel in memory is the one that was attached to. The guest is stopped."""
        try:
            return boot_cookie(self.kernel) == self.guest_cookie
        except (MemoryAccessError, SymbolError):
            return False

    def panicked(self) -> bool:
        """Return whether the guest has panicked. Stops it for a moment where its RAM is no shared file."""
        return has_panicked(self.kernel.find, self.read_code)

    def check_alive(self) -> None:
        """Raise :class:`GuestError` when the guest was rebooted or died. Does not stop it as long as it ticks."""
        if self._qmp is not None:
            check_events(self._qmp.events())
        if self._liveness.due():
            with self.clock.paused():
                check_status(self.target)
                self._liveness.look()

    def _ticks(self) -> int | None:
        jiffies = self.kernel.find("jiffies_64", "jiffies")
        if jiffies is None or self._ram_text is None:
            return None
        data = self._ram_text.read_many([(jiffies, 8)])[0]
        return int.from_bytes(data, "little") if data is not None else None

    def system_calls(self) -> SystemCalls:
        """Return the system calls by their functions, from what the kernel itself finds them with."""
        table = self.functions
        starts = table.addrs

        def function_at(addr: int) -> Function | None:
            at = bisect_left(starts, addr)
            return table[at] if at < len(starts) and starts[at] == addr else None

        dispatchers = find_dispatchers(self.kernel.symbols)
        data = self.read_code([(dispatcher.addr, dispatcher.size) for dispatcher in dispatchers])
        numbers = syscall_numbers(dispatchers, data)
        return SystemCalls(numbers.by_function, function_at, numbers.complete)

    def read_code(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Read the live text of many functions: from the RAM file without a stop, else in one pause.

        ``ranges``: address and size of each. Text that cannot be read is None.
        """
        if self._ram_text is not None:
            return self.text.read_many(ranges)
        with self.clock.paused():
            if len(ranges) <= _MAX_SINGLE_READS:
                return self.text.read_many(ranges)
            images = self.kernel.read_text()
        found: list[bytes | None] = []
        for addr, size in ranges:
            image = next((i for i in images if i.holds(addr, size)), None)
            found.append(image.read(addr, size) if image is not None else None)
        return found

    def process_page_tables(self) -> ProcessPageTables:
        """Return the page tables of the kernel and of every process."""
        kernel = self.kernel
        ram = self._caching_reader()
        memory = KernelMemory(KernelText(self.target, kernel.address_space, kernel.symbol("init_task"), ram))
        top = kernel.find("init_top_pgt")
        return ProcessPageTables(
            kernel.address_space, memory, self.clock, ram=ram, tasks=kernel.task_addresses, btf=kernel.btf, top=top
        )

    def data_memory(self, memory: Allocation) -> DataMemory:
        """Return the fastest access to memory of ours: the RAM file if it holds the pages, else the stub.

        The guest is stopped.
        """
        ram = self.ram
        if ram is None:
            return StubData(self.text, self.clock)
        if self._ram_text is not None:
            self._ram_text.invalidate()  # where our memory is now, something else may have been before
        pages = self.kernel.address_space.translate_many(range(memory.addr, memory.addr + memory.size, _PAGE))
        live = RamData(ram, {page: phys for page, phys in pages.items() if phys is not None})
        # The mapping must be this guest's memory and not another's: the stub and the file have to agree.
        try:
            live.write(memory.addr, b"probekit")
            same = self.text.read_many([(memory.addr, 8)])[0] == b"probekit"
            live.write(memory.addr, bytes(8))
            live.read(memory.addr, memory.size)
        except MemoryAccessError:
            same = False
        return live if same else StubData(self.text, self.clock)


def attach(spec: str | None = None, options: AttachOptions | None = None) -> Attachment:
    """Connect to a guest, find its kernel, and let it run on.

    ``spec``: as ``-r`` takes it; None for the only guest of this host that has a gdb stub.
    Raises :class:`probekit.errors.BusyError` when another probekit is attached to it, or another
    :class:`probekit.errors.ProbekitError`. After an error the guest is as it was.
    """
    options = options or AttachOptions()
    if spec is None:
        from probekit.target.discovery import only_guest

        spec, _ = only_guest()
    lock = acquire(target_key(spec))
    target: Target | None = None
    try:
        options.progress(f"connecting to {spec}")
        begin = time.monotonic()
        target = connect(spec, timeout=options.timeout)
        check_status(target)
        kernel = open_kernel(target, symbols_file=options.symbols, cache=options.cache, progress=options.progress)
        attachment = Attachment(spec, target, kernel, lock, options)
        _check_leftovers(attachment)
        target.resume()
        attachment.attach_pause = time.monotonic() - begin
        return attachment
    except BaseException:
        if target is not None:
            _detach_after_error(target)
        lock.release()
        raise


def _open_qmp(options: AttachOptions) -> Qmp | None:
    if options.qmp is None:
        return None
    from probekit.target.qmp import Qmp  # slow to import: asyncio

    return Qmp(options.qmp.removeprefix("unix:"), timeout=options.timeout)


def _detach_after_error(target: Target) -> None:
    """Detach, and let the guest run again. A second error must not hide the first, so it is ignored."""
    with suppress(TargetError):
        target.detach()


def _check_leftovers(attachment: Attachment) -> None:
    """Raise :class:`GuestError` for a guest that a killed probekit left changed."""
    for state in journals_of(attachment.spec):
        if state.header.cookie != attachment.guest_cookie:
            state.path.unlink(missing_ok=True)  # that guest is gone: it rebooted, or it was another one
        elif state.batches or state.registrations or state.calls:
            raise GuestError(
                f"an earlier probekit (process {state.header.host_pid}) was killed and left this guest changed",
                hint=f"run `probekit recover -r {attachment.spec}` first",
            )
    if find_tables(attachment.target, attachment.kernel):
        if attachment.panicked():
            raise panic_error()
        raise GuestError(
            "a probekit whose journal is not on this machine was killed and left this guest changed",
            hint=f"run `probekit recover -r {attachment.spec}`: the guest's memory says what to restore",
        )
