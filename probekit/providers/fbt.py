"""Provider ``fbt``: the entry and the return of every kernel function.

``fbt:MODULE:FUNCTION:entry`` has the function's arguments as ``arg0`` .. ``arg9``;
``fbt:MODULE:FUNCTION:return`` has the offset of the exit as ``arg0`` and the
returned value as ``arg1``. There is one probe for each *address*: further names
of it (aliases) match as well, and ``probefunc`` is the kernel's first name. On
kernels whose system calls are ``__x64_sys_NAME``, ``sys_NAME`` names them too.

IDs follow the address order, so they do not change while a kernel runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from probekit.kernel.symbols import Symbol
from probekit.probe.names import ProbeDescription, ProbeName, glob_regex
from probekit.providers.api import Function, Probe, ProbeKind

__all__ = ("KERNEL_MODULE", "FbtProvider", "functions")

KERNEL_MODULE = "vmlinux"
_SYSCALL_PREFIX = "__x64_sys_"
_COLD = ".cold"
_KINDS: tuple[ProbeKind, ...] = ("entry", "return")


def _preference(symbol: Symbol) -> tuple[bool, bool]:
    """Of several names of one address the native system call first, then the global one."""
    return (not symbol.name.startswith(_SYSCALL_PREFIX), symbol.type_char != "T")


def _is_cold(name: str) -> bool:
    return _COLD in name and name.partition(_COLD)[2].lstrip(".").isdecimal() | name.endswith(_COLD)


def functions(symbols: Iterable[Symbol], excluded: Iterable[tuple[int, int]] = ()) -> tuple[Function, ...]:
    """The functions of a kernel by address, ``.cold`` parts folded into their parents.

    ``symbols``: text symbols by address; ``excluded``: ranges with no live code in them (init text).
    """
    ranges = tuple(excluded)
    cold: dict[tuple[str, str], list[tuple[int, int]]] = {}
    found: list[tuple[Symbol, tuple[str, ...]]] = []
    for _, group in groupby(symbols, key=lambda s: s.addr):
        names = list(group)
        if len(names) > 1:
            names.sort(key=_preference)
        first = names[0]
        if ranges and any(start <= first.addr < end for start, end in ranges):
            continue
        if _is_cold(first.name):
            parent = first.name.partition(_COLD)[0]
            cold.setdefault((first.module, parent), []).append((first.addr, first.end))
            continue
        aliases = dict.fromkeys(s.name for s in names if s.name != first.name) if len(names) > 1 else ()
        found.append((first, tuple(aliases)))
    return tuple(
        Function(
            addr=symbol.addr,
            size=symbol.size,
            name=symbol.name,
            module=symbol.module or KERNEL_MODULE,
            aliases=aliases,
            cold=tuple(cold.get((symbol.module, symbol.name), ())),
        )
        for symbol, aliases in found
    )


class FbtProvider:
    """Entry and return probes over a table of functions. ``first_id``: the ID of the first function's entry."""

    name = "fbt"

    def __init__(self, table: tuple[Function, ...], first_id: int) -> None:
        self._table = table
        self._first_id = first_id

    @property
    def end_id(self) -> int:
        """The first ID that is not ours."""
        return self._first_id + 2 * len(self._table)

    @property
    def functions(self) -> tuple[Function, ...]:
        """All functions by address."""
        return self._table

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """See :class:`probekit.providers.api.Provider`."""
        if description.probe_id is not None:
            return
        kinds = [kind for kind in _KINDS if _fits(description.name, kind)]
        if not kinds or not _fits(description.provider, self.name):
            return
        module = glob_regex(description.module) if description.module else None
        pattern = glob_regex(description.function) if description.function else None
        for index, function in enumerate(self._table):
            if module is not None and module.fullmatch(function.module) is None:
                continue
            if pattern is None or any(pattern.fullmatch(name) for name in _names(function)):
                for kind in kinds:
                    yield self._probe(index, kind)

    def by_id(self, probe_id: int) -> Probe | None:
        """See :class:`probekit.providers.api.Provider`."""
        index, which = divmod(probe_id - self._first_id, 2)
        return self._probe(index, _KINDS[which]) if 0 <= index < len(self._table) else None

    def _probe(self, index: int, kind: ProbeKind) -> Probe:
        function = self._table[index]
        name = ProbeName(self.name, function.module, function.name, kind)
        return Probe(self._first_id + 2 * index + _KINDS.index(kind), name, kind, function)


def _fits(pattern: str, text: str) -> bool:
    return not pattern or glob_regex(pattern).fullmatch(text) is not None


def _names(function: Function) -> Iterator[str]:
    """Every name that a description may use for the function."""
    yield function.name
    yield from function.aliases
    if function.name.startswith(_SYSCALL_PREFIX):
        yield "sys_" + function.name.removeprefix(_SYSCALL_PREFIX)
