"""Attaches to a guest: turns a target string into an :class:`Attachment`, on which programs can run."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from probekit.enabling.syscall_returns import SystemCalls
from probekit.enabling.text_facts import gather_text
from probekit.errors import (
    Cancelled,
    GuestError,
    JournalError,
    MemoryAccessError,
    ProbekitError,
)
from probekit.guest.borrowed import borrowed_tasks
from probekit.guest.facts import GuestFacts
from probekit.guest.find_facts import find_guest_facts, is_emulated
from probekit.guest.health import check_status, panic_error
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
from probekit.patch.journal import remove_journal
from probekit.patch.jump_windows import side_entries
from probekit.patch.sites import TextFacts
from probekit.providers.api import Function
from probekit.providers.from_kernel import GuestMarkers, GuestTracepoints, LiveMemory, find_variable, guest_functions
from probekit.providers.function_table import FunctionTable
from probekit.providers.registry import Registry, make_registry
from probekit.session.exclusive import ExclusiveUse
from probekit.session.identity import boot_cookie, target_key
from probekit.session.journal_log import journals_of
from probekit.session.liveness import GuestLife
from probekit.session.lock import Lock, acquire, no_lock
from probekit.session.opening import AttachOptions, Connection, open_target
from probekit.session.signals import Interrupts
from probekit.session.table_scan import find_tables
from probekit.target.api import Target
from probekit.target.connect import parse_spec
from probekit.target.discovery import find_qemu
from probekit.target.guest_ram import GuestRam, parse_ram_ranges, parse_ram_spans

if TYPE_CHECKING:
    from probekit.target.qmp import Qmp

__all__ = ("AttachOptions", "Attachment", "attach")

_PAGE = 4096
_LA57 = 1 << 12
_TRIES = 3
_MAX_SINGLE_READS = 2000  # to read more functions than this, whole text sections are read


class Attachment:
    """Holds the connection to a guest, and everything that was found out about it.

    The guest runs between operations. This is a context manager; leaving it detaches from the guest.
    """

    def __init__(
        self, spec: str, target: Target, kernel: Kernel, lock: Lock, options: AttachOptions, qmp: Qmp | None = None
    ) -> None:
        self.spec = spec
        """The target, as the user wrote it."""
        self.target = target
        self.kernel = kernel
        self.clock = PauseClock(target)
        """Pauses the guest, and measures for how long it was paused."""
        self.interrupts = Interrupts(options.answer)
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
        self._qmp = qmp
        self.stacks = GuestStacks(kernel, self.safe_loads)
        self.life = GuestLife(
            target,
            kernel,
            self.clock,
            self.guest_cookie,
            qmp=qmp,
            read_stopped=self.text.read_many,
            read_running=self._ram_text.read_many if self._ram_text is not None else None,
            read=self.read_code,
        )
        """Tells whether this kernel still runs."""
        self.use = ExclusiveUse()
        """Allows one trace, and one thread, at a time."""
        self.attach_pause = 0.0
        """How many seconds the guest was stopped for while we attached."""

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Restore the guest if a trace is live, let it run and close the connection. Safe to call twice."""
        self.use.detach(self._let_go)

    def _let_go(self) -> None:
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
        except Cancelled:
            raise
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
        except Cancelled:
            raise
        except ProbekitError:
            return None

    def is_paused(self) -> bool:
        """Return whether somebody else has paused the guest. One that was paused is looked at again."""
        if self.target.paused:
            with self.clock.paused():
                pass
        return self.target.paused

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
    """Connect to a guest, find its kernel, and let it run on. A guest that somebody has paused stays paused.

    ``spec``: as ``-r`` takes it; None for the only guest of this host that has a gdb stub.
    Raises :class:`probekit.errors.BusyError` when another probekit is attached to it, or another
    :class:`probekit.errors.ProbekitError`. After an error the guest is as it was.
    """
    options = options or AttachOptions()
    if spec is None:
        from probekit.target.discovery import only_guest

        spec, _ = only_guest()
    lock = _lock(spec, options)
    opened: Connection | None = None
    try:
        begin = time.monotonic()
        opened = open_target(spec, options, lock)
        attachment = _read_guest(spec, opened, lock, options)
        opened.target.resume()
        attachment.attach_pause = time.monotonic() - begin
        return attachment
    except BaseException:
        if opened is not None:
            opened.let_go()
        lock.release()
        raise


def _lock(spec: str, options: AttachOptions) -> Lock:
    """Lock the guest. Only a command that changes nothing does without, where there can be no lock file."""
    try:
        return acquire(target_key(spec))
    except JournalError as error:
        if options.changes:
            raise
        options.progress(f"the guest is not locked: {error.message}")
        return no_lock()


def _read_guest(spec: str, opened: Connection, lock: Lock, options: AttachOptions) -> Attachment:
    """Find the kernel, and what an earlier probekit may have left. Repeats it if the guest ran meanwhile."""
    target = opened.target
    check_status(target)
    tries = 0
    while True:
        runs, tries = target.foreign_runs, tries + 1
        try:
            kernel = open_kernel(target, symbols_file=options.symbols, cache=options.cache, progress=options.progress)
            attachment = Attachment(spec, target, kernel, lock, options, opened.qmp)
            _look_for_leftovers(attachment, options)
        except (GuestError, MemoryAccessError):
            if target.foreign_runs == runs or tries == _TRIES:
                raise
        else:
            return attachment


def _look_for_leftovers(attachment: Attachment, options: AttachOptions) -> None:
    """Check for them. Only a command that changes nothing does without, where journals cannot be read."""
    try:
        _check_leftovers(attachment)
    except JournalError as error:
        if options.changes:
            raise
        options.progress(f"the undo journals are not looked at: {error.message}")


def _check_leftovers(attachment: Attachment) -> None:
    """Raise :class:`GuestError` for a guest that a killed probekit left changed."""
    for state in journals_of(attachment.spec):
        if state.header.cookie != attachment.guest_cookie:
            remove_journal(state.path)  # that guest is gone: it rebooted, or it was another one
        elif state.batches or state.registrations or state.calls:
            raise GuestError(
                f"an earlier probekit (process {state.header.host_pid}) was killed and left this guest changed",
                hint=f"run `probekit recover -r {attachment.spec}` first",
            )
    if borrowed_tasks(attachment.target):
        raise GuestError(
            "a probekit whose journal is not on this machine was killed while it had borrowed a task of this guest",
            hint=f"run `probekit recover -r {attachment.spec}`: it gives the task back",
        )
    if find_tables(attachment.target, attachment.kernel):
        if attachment.life.panicked():
            raise panic_error()
        raise GuestError(
            "a probekit whose journal is not on this machine was killed and left this guest changed",
            hint=f"run `probekit recover -r {attachment.spec}`: the guest's memory says what to restore",
        )
