"""The kernel's tracepoints: name, trace system, owner, arguments.

Every tracepoint is a ``struct tracepoint``. Pointers to the kernel's own stand
between ``__start___tracepoints_ptrs`` and ``__stop___tracepoints_ptrs``, those
of a module in ``module->tracepoints_ptrs``: 32-bit offsets from themselves
(commit 46e0c9be206f, v4.19) where ``tracepoint_ptr_t`` is an int.

The *system* (``sched``, ``irq``) is not the tracepoint's but its trace event's:
``ftrace_events`` lists ``struct trace_event_call``, each with its tracepoint and
a class that names the system. A tracepoint without an event has none.

Arguments are those of ``btf_trace_NAME``, or of the iterator ``__traceiter_NAME``
(commit d25e37d89dd2, v5.10); the first, ``void *``, is the registration's own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.memory import Memory
from probekit.kernel.modules import Module, walk_list
from probekit.kernel.symbols import SymbolTable
from probekit.kernel.text import clean_text
from probekit.kernel.types import FuncType, Param, PtrType, VoidType, strip
from probekit.records import record

__all__ = (
    "ProbeList",
    "Tracepoint",
    "count_tracepoints",
    "list_tracepoints",
    "probe_list",
    "tracepoint_params",
)

_BOUNDS = ("__start___tracepoints_ptrs", "__stop___tracepoints_ptrs")
_MAX_TRACEPOINTS = 1 << 16
_MAX_EVENTS = 1 << 16
_MAX_NAME = 128
_MAX_PROBES = 1024
_KERNEL_HALF = 1 << 63

Reader = Callable[[Sequence[tuple[int, int]]], list[bytes | None]]
"""Guest memory: ``(addr, size)`` ranges to bytes, None where unreadable."""


@record
class Tracepoint:
    """One tracepoint. ``addr``: its ``struct tracepoint``; ``system``: of its trace event, or empty.

    ``module``: who owns it, empty for the kernel itself; ``owner``: that module's ``struct module``, or 0.
    """

    addr: int
    name: str
    system: str = ""
    module: str = ""
    owner: int = 0


@record
class _Pointers:
    """One owner's table of pointers."""

    addr: int
    count: int
    module: str = ""
    owner: int = 0


def _tables(symbols: SymbolTable, modules: Iterable[Module], btf: Btf) -> list[_Pointers]:
    """Whose tables there are. Nothing is read from the guest."""
    size = _pointer_size(btf)
    found: list[_Pointers] = []
    bounds = symbols.range(*_BOUNDS)
    if bounds is not None:
        found.append(_Pointers(bounds[0], (bounds[1] - bounds[0]) // size))
    layout = btf.find_struct("module")
    pointer = layout.find_field("tracepoints_ptrs") if layout is not None else None
    number = layout.find_field("num_tracepoints") if layout is not None else None
    if pointer is not None and number is not None:
        for module in modules:
            addr = int.from_bytes(module.data[pointer.offset : pointer.offset + 8], "little")
            count = int.from_bytes(module.data[number.offset : number.offset + number.size], "little")
            if addr and count and module.state == "live":
                found.append(_Pointers(addr, count, module.name, module.addr))
    if sum(table.count for table in found) > _MAX_TRACEPOINTS:
        raise SymbolError("the guest claims to have more tracepoints than any kernel has")
    return found


def _pointer_size(btf: Btf) -> int:
    try:
        return 8 if isinstance(strip(btf.typedef("tracepoint_ptr_t")), PtrType) else 4
    except SymbolError:  # older kernels have no such type, and plain pointers
        return 8


def count_tracepoints(symbols: SymbolTable, modules: Iterable[Module], btf: Btf | None) -> int:
    """How many there are, without a look at the guest; 0 for a kernel without types."""
    if btf is None or btf.find_struct("tracepoint") is None:
        return 0
    return sum(table.count for table in _tables(symbols, modules, btf))


def list_tracepoints(
    memory: Memory, symbols: SymbolTable, modules: Iterable[Module], btf: Btf | None
) -> tuple[Tracepoint, ...]:
    """All tracepoints, the kernel's first, each owner's in its own order; as many as :func:`count_tracepoints` says.

    One whose name makes no sense keeps its place with an empty name. Raises :class:`SymbolError` for tables that do.
    """
    layout = btf.find_struct("tracepoint") if btf is not None else None
    if btf is None or layout is None:
        return ()
    at = layout.field("name").offset
    owned = [
        (addr, table)
        for table in _tables(symbols, modules, btf)
        for addr in _pointers(memory, table, _pointer_size(btf))
    ]
    names = _names(memory, [addr + at for addr, _ in owned])
    systems = _systems(memory, symbols, btf, frozenset(addr for addr, _ in owned))
    return tuple(
        Tracepoint(addr, name, systems.get(addr, ""), table.module, table.owner)
        for (addr, table), name in zip(owned, names, strict=True)
    )


def _pointers(memory: Memory, table: _Pointers, size: int) -> list[int]:
    data = memory.read(table.addr, table.count * size)
    if size == 8:
        return list(struct.unpack(f"<{table.count}Q", data))
    offsets = struct.unpack(f"<{table.count}i", data)
    return [table.addr + 4 * place + offset & (1 << 64) - 1 for place, offset in enumerate(offsets)]


def _names(memory: Memory, pointers: Sequence[int]) -> list[str]:
    """The string that each pointer points at; empty where there is none that could be a name."""
    where = [int.from_bytes(word or b"", "little") for word in memory.read_many([(p, 8) for p in pointers])]
    ranges = [(addr, _MAX_NAME) if addr & _KERNEL_HALF else (0, 0) for addr in where]
    texts = memory.read_many(ranges)
    for place, text in enumerate(texts):
        if text is None:  # the string may end just before an unmapped page
            room = -ranges[place][0] % 4096
            texts[place] = memory.read_many([(ranges[place][0], min(room, _MAX_NAME))])[0]
    return [_name(text) for text in texts]


def _name(text: bytes | None) -> str:
    raw, end, _ = (text or b"").partition(b"\0")
    name = clean_text(raw) if end else ""
    return name if name.replace("_", "a").isalnum() else ""


def _systems(memory: Memory, symbols: SymbolTable, btf: Btf, known: frozenset[int]) -> dict[int, str]:
    """The system of every tracepoint that has a trace event, by the tracepoint's address."""
    head = symbols.addr("ftrace_events")
    call, group = btf.find_struct("trace_event_call"), btf.find_struct("trace_event_class")
    if head is None or call is None or group is None:
        return {}
    # An event of another kind has its name where these have their tracepoint: only addresses of tracepoints count.
    link, owner, tracepoint = (call.field(name).offset for name in ("list", "class", "tp"))
    calls = [at - link for at in walk_list(memory, head, _MAX_EVENTS)]
    words = memory.read_many([piece for addr in calls for piece in ((addr + owner, 8), (addr + tracepoint, 8))])
    numbers = [int.from_bytes(word or b"", "little") for word in words]
    classes = {addr: of for of, addr in zip(numbers[::2], numbers[1::2], strict=True) if addr in known}
    unique = list(dict.fromkeys(classes.values()))
    at = group.field("system").offset
    texts = dict(zip(unique, _names(memory, [addr + at for addr in unique]), strict=True))
    return {addr: texts[of] for addr, of in classes.items() if texts[of]}


def tracepoint_params(tracepoint: Tracepoint, btf: Btf | None) -> tuple[Param, ...] | None:
    """What the tracepoint hands to a probe, without the registration's own pointer; None when the types do not say.

    ``btf``: of the owner.
    """
    if btf is None:
        return None
    prototype: FuncType | None = btf.function(f"__traceiter_{tracepoint.name}")  # its arguments have names
    if prototype is None:
        try:
            target = strip(btf.typedef(f"btf_trace_{tracepoint.name}"))
        except SymbolError:
            return None
        inner = strip(target.target) if isinstance(target, PtrType) else VoidType()
        prototype = inner if isinstance(inner, FuncType) else None
    return prototype.params[1:] if prototype is not None and prototype.params else None


@record
class ProbeList:
    """Where a tracepoint keeps its probes: byte offsets of ``tracepoint.funcs``, and in the entries of that array."""

    funcs: int
    entry_size: int
    function: int
    data: int

    def registered(self, read: Reader, tracepoints: Sequence[int]) -> dict[int, frozenset[tuple[int, int]]]:
        """``(function, data)`` of the probes of every tracepoint, as the kernel keeps them now.

        A list longer than any real one is read as far as that, so that a hostile one has an end.
        """
        words = read([(addr + self.funcs, 8) for addr in tracepoints])
        lists = {t: int.from_bytes(word or b"", "little") for t, word in zip(tracepoints, words, strict=True)}
        found: dict[int, set[tuple[int, int]]] = {addr: set() for addr in tracepoints}
        open_ = {t: at for t, at in lists.items() if at}
        for _ in range(_MAX_PROBES):
            entries = read([(at, self.entry_size) for at in open_.values()])
            following: dict[int, int] = {}
            for (tracepoint, at), entry in zip(open_.items(), entries, strict=True):
                function = _word(entry, self.function)
                if function:
                    found[tracepoint].add((function, _word(entry, self.data)))
                    following[tracepoint] = at + self.entry_size
            if not following:
                break
            open_ = following
        return {addr: frozenset(probes) for addr, probes in found.items()}


def _word(data: bytes | None, offset: int) -> int:
    return int.from_bytes((data or b"")[offset : offset + 8], "little")


def probe_list(btf: Btf | None) -> ProbeList | None:
    """The layout of this kernel's lists of probes; None without types or tracepoints."""
    layout = btf.find_struct("tracepoint") if btf is not None else None
    entry = btf.find_struct("tracepoint_func") if btf is not None else None
    if layout is None or entry is None:
        return None
    return ProbeList(layout.field("funcs").offset, entry.size, entry.field("func").offset, entry.field("data").offset)
