"""List the kernel's tracepoints: name, trace system, owner, arguments, and the probes that are registered.

Every tracepoint is a ``struct tracepoint``. Pointers to the kernel's own stand
between ``__start___tracepoints_ptrs`` and ``__stop___tracepoints_ptrs``, pointers to
a module's in ``module->tracepoints_ptrs``: 32-bit offsets from themselves
(commit 46e0c9be206f, v4.19) where ``tracepoint_ptr_t`` is an int.

The *system* (``sched``, ``irq``) belongs to the trace event, not to the tracepoint:
``ftrace_events`` lists ``struct trace_event_call``, each with its tracepoint and
a class that names the system. A tracepoint without an event has no system.

The arguments are those of ``btf_trace_NAME``, or of the iterator ``__traceiter_NAME``
(commit d25e37d89dd2, v5.10); the first, ``void *``, belongs to the registration.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CFunction, CParam, CPointer, CVoid, strip
from probekit.kernel.escape import escape_unprintable
from probekit.kernel.linked_list import walk_list
from probekit.kernel.memory import KernelMemory
from probekit.kernel.modules import Module
from probekit.kernel.symbols import SymbolTable
from probekit.records import record

__all__ = (
    "ProbeListLayout",
    "ReadRanges",
    "Tracepoint",
    "count_tracepoints",
    "list_tracepoints",
    "probe_list_layout",
    "tracepoint_params",
)

_BOUNDS = ("__start___tracepoints_ptrs", "__stop___tracepoints_ptrs")
_MAX_TRACEPOINTS = 1 << 16
_MAX_EVENTS = 1 << 16
_MAX_NAME = 128
_MAX_PROBES = 1024
_KERNEL_HALF = 1 << 63

ReadRanges = Callable[[Sequence[tuple[int, int]]], list[bytes | None]]
"""Reads ``(address, size)`` ranges of guest memory; None where one is unreadable."""


@record
class Tracepoint:
    """One tracepoint."""

    addr: int
    """Address of its ``struct tracepoint``."""
    name: str
    """Its name, escaped."""
    system: str = ""
    """The system of its trace event; empty without one."""
    module: str = ""
    """The module that has it; empty for the kernel itself."""
    owner: int = 0
    """Address of that module's ``struct module``; 0 for the kernel itself."""


@record
class _PointerTable:
    """One owner's table of pointers to its tracepoints."""

    addr: int
    """Address of the table."""
    count: int
    """How many pointers it has."""
    module: str = ""
    """The module's name; empty for the kernel."""
    owner: int = 0
    """As in :class:`Tracepoint`."""


def _pointer_tables(symbols: SymbolTable, modules: Iterable[Module], btf: Btf) -> list[_PointerTable]:
    """Return the tables of the kernel and its modules. Nothing is read from the guest."""
    size = _pointer_size(btf)
    found: list[_PointerTable] = []
    bounds = symbols.range(*_BOUNDS)
    if bounds is not None:
        found.append(_PointerTable(bounds[0], (bounds[1] - bounds[0]) // size))
    layout = btf.find_struct("module")
    pointer = layout.find_field("tracepoints_ptrs") if layout is not None else None
    number = layout.find_field("num_tracepoints") if layout is not None else None
    if pointer is not None and number is not None:
        for module in modules:
            addr = int.from_bytes(module.data[pointer.offset : pointer.offset + 8], "little")
            count = int.from_bytes(module.data[number.offset : number.offset + number.size], "little")
            if addr and count and module.state == "live":
                found.append(_PointerTable(addr, count, module.name, module.addr))
    if sum(table.count for table in found) > _MAX_TRACEPOINTS:
        raise SymbolError("the guest claims to have more tracepoints than any kernel has")
    return found


def _pointer_size(btf: Btf) -> int:
    try:
        return 8 if isinstance(strip(btf.typedef("tracepoint_ptr_t")), CPointer) else 4
    except SymbolError:  # older kernels have plain pointers and no such type
        return 8


def count_tracepoints(symbols: SymbolTable, modules: Iterable[Module], btf: Btf | None) -> int:
    """Return how many there are, without reading guest memory; 0 for a kernel without types.

    Raises :class:`SymbolError` for more than any kernel has.
    """
    if btf is None or btf.find_struct("tracepoint") is None:
        return 0
    return sum(table.count for table in _pointer_tables(symbols, modules, btf))


def list_tracepoints(
    memory: KernelMemory, symbols: SymbolTable, modules: Iterable[Module], btf: Btf | None
) -> tuple[Tracepoint, ...]:
    """Return all tracepoints, the kernel's first, each owner's in its own order; as many as :func:`count_tracepoints`.

    One whose name makes no sense keeps its place, with an empty name. Raises :class:`SymbolError` for tables that make
    no sense.
    """
    layout = btf.find_struct("tracepoint") if btf is not None else None
    if btf is None or layout is None:
        return ()
    at = layout.field("name").offset
    owned = [
        (addr, table)
        for table in _pointer_tables(symbols, modules, btf)
        for addr in _pointers(memory, table, _pointer_size(btf))
    ]
    names = _names(memory, [addr + at for addr, _ in owned])
    systems = _systems(memory, symbols, btf, frozenset(addr for addr, _ in owned))
    return tuple(
        Tracepoint(addr, name, systems.get(addr, ""), table.module, table.owner)
        for (addr, table), name in zip(owned, names, strict=True)
    )


def _pointers(memory: KernelMemory, table: _PointerTable, size: int) -> list[int]:
    data = memory.read(table.addr, table.count * size)
    if size == 8:
        return list(struct.unpack(f"<{table.count}Q", data))
    offsets = struct.unpack(f"<{table.count}i", data)
    return [table.addr + 4 * index + offset & (1 << 64) - 1 for index, offset in enumerate(offsets)]


def _names(memory: KernelMemory, pointers: Sequence[int]) -> list[str]:
    """Read the string that each pointer points at; empty where it cannot be a name."""
    addrs = [int.from_bytes(word or b"", "little") for word in memory.read_many([(p, 8) for p in pointers])]
    ranges = [(addr, _MAX_NAME) if addr & _KERNEL_HALF else (0, 0) for addr in addrs]
    texts = memory.read_many(ranges)
    for index, text in enumerate(texts):
        if text is None:  # the string may end just before an unmapped page
            room = -ranges[index][0] % 4096
            texts[index] = memory.read_many([(ranges[index][0], min(room, _MAX_NAME))])[0]
    return [_name(text) for text in texts]


def _name(text: bytes | None) -> str:
    raw, end, _ = (text or b"").partition(b"\0")
    name = escape_unprintable(raw) if end else ""
    return name if name.replace("_", "a").isalnum() else ""


def _systems(memory: KernelMemory, symbols: SymbolTable, btf: Btf, known: frozenset[int]) -> dict[int, str]:
    """Return the system of every tracepoint that has a trace event, by the tracepoint's address."""
    head = symbols.addr("ftrace_events")
    call, group = btf.find_struct("trace_event_call"), btf.find_struct("trace_event_class")
    if head is None or call is None or group is None:
        return {}
    # Events of other kinds have their name in place of the tracepoint, so only addresses of tracepoints count.
    link, owner, tracepoint = (call.field(name).offset for name in ("list", "class", "tp"))
    calls = [at - link for at in walk_list(memory, head, _MAX_EVENTS)]
    words = memory.read_many([piece for addr in calls for piece in ((addr + owner, 8), (addr + tracepoint, 8))])
    numbers = [int.from_bytes(word or b"", "little") for word in words]
    classes = {addr: class_ for class_, addr in zip(numbers[::2], numbers[1::2], strict=True) if addr in known}
    unique = list(dict.fromkeys(classes.values()))
    at = group.field("system").offset
    texts = dict(zip(unique, _names(memory, [addr + at for addr in unique]), strict=True))
    return {addr: texts[class_] for addr, class_ in classes.items() if texts[class_]}


def tracepoint_params(tracepoint: Tracepoint, btf: Btf | None) -> tuple[CParam, ...] | None:
    """Return the parameters that a probe gets, without the registration's own pointer; None when the types do not say.

    ``btf``: the types of the tracepoint's owner.
    """
    if btf is None:
        return None
    prototype: CFunction | None = btf.function(f"__traceiter_{tracepoint.name}")  # its arguments have names
    if prototype is None:
        try:
            target = strip(btf.typedef(f"btf_trace_{tracepoint.name}"))
        except SymbolError:
            return None
        inner = strip(target.target) if isinstance(target, CPointer) else CVoid()
        prototype = inner if isinstance(inner, CFunction) else None
    return prototype.params[1:] if prototype is not None and prototype.params else None


@record
class ProbeListLayout:
    """Where a tracepoint keeps its probes, in bytes."""

    funcs: int
    """Offset of ``tracepoint.funcs``, which points at an array of ``struct tracepoint_func``."""
    entry_size: int
    """Size of an entry of that array."""
    function: int
    """Offset of ``func`` in an entry."""
    data: int
    """Offset of ``data`` in an entry."""

    def registered(self, read: ReadRanges, tracepoints: Sequence[int]) -> dict[int, frozenset[tuple[int, int]]]:
        """Return ``(function, data)`` of the probes of every tracepoint, as the kernel keeps them now.

        ``tracepoints``: addresses of ``struct tracepoint``. At most 1024 probes of each are read, so that a hostile
        list has an end.
        """
        words = read([(addr + self.funcs, 8) for addr in tracepoints])
        lists = {t: int.from_bytes(word or b"", "little") for t, word in zip(tracepoints, words, strict=True)}
        found: dict[int, set[tuple[int, int]]] = {addr: set() for addr in tracepoints}
        unread = {t: at for t, at in lists.items() if at}
        for _ in range(_MAX_PROBES):
            entries = read([(at, self.entry_size) for at in unread.values()])
            following: dict[int, int] = {}
            for (tracepoint, at), entry in zip(unread.items(), entries, strict=True):
                function = _word(entry, self.function)
                if function:
                    found[tracepoint].add((function, _word(entry, self.data)))
                    following[tracepoint] = at + self.entry_size
            if not following:
                break
            unread = following
        return {addr: frozenset(probes) for addr, probes in found.items()}


def _word(data: bytes | None, offset: int) -> int:
    return int.from_bytes((data or b"")[offset : offset + 8], "little")


def probe_list_layout(btf: Btf | None) -> ProbeListLayout | None:
    """Return the layout of this kernel's lists of probes; None without types or tracepoints."""
    layout = btf.find_struct("tracepoint") if btf is not None else None
    entry = btf.find_struct("tracepoint_func") if btf is not None else None
    if layout is None or entry is None:
        return None
    return ProbeListLayout(
        layout.field("funcs").offset, entry.size, entry.field("func").offset, entry.field("data").offset
    )
