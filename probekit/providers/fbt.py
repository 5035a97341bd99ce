"""Publish the provider ``fbt``: the entry and the return of every kernel function.

``fbt:MODULE:FUNCTION:entry`` has the function's arguments as ``arg0`` .. ``arg9``;
``fbt:MODULE:FUNCTION:return`` has the offset of the exit as ``arg0`` and the
returned value as ``arg1``. There is one probe for each *address*: its other names
(aliases) match as well, and ``probefunc`` is the kernel's first name. On
kernels whose system calls are ``__x64_sys_NAME``, ``sys_NAME`` names them too.

IDs follow the address order, so they do not change while a kernel runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from probekit.kernel.symbols import KernelSymbol
from probekit.probe.names import ProbeDescription, ProbeName, glob_regex, is_glob
from probekit.providers.api import KERNEL_MODULE, Function, Probe, ProbeKind

__all__ = ("SYSCALL_PREFIX", "FbtProvider", "FunctionTable", "function_table", "matching_functions")

SYSCALL_PREFIX = "__x64_sys_"
"""The prefix of the functions of system calls (commit d5a00528b58c, v4.17)."""
_COLD = ".cold"
_KINDS: tuple[ProbeKind, ...] = ("entry", "return")


def _preference(symbol: KernelSymbol) -> tuple[bool, bool]:
    """Sort several names of one address: the native system call first, then the global one."""
    return (not symbol.name.startswith(SYSCALL_PREFIX), symbol.type_char != "T")


def _is_cold(name: str) -> bool:
    return _COLD in name and name.partition(_COLD)[2].lstrip(".").isdecimal() | name.endswith(_COLD)


def _group_by_address(symbols: Iterable[KernelSymbol]) -> Iterator[tuple[KernelSymbol, Sequence[KernelSymbol]]]:
    """Yield the first symbol at each address, and the others there."""
    first: KernelSymbol | None = None
    others: Sequence[KernelSymbol] = ()
    for symbol in symbols:
        if first is None:
            first = symbol
        elif symbol[0] == first[0]:
            others = (*others, symbol)
        else:
            yield first, others
            first, others = symbol, ()
    if first is not None:
        yield first, others


def function_table(symbols: Iterable[KernelSymbol], excluded: Iterable[tuple[int, int]] = ()) -> FunctionTable:
    """Return the functions of a kernel by address, with ``.cold`` parts as part of their function.

    ``symbols``: text symbols by address; ``excluded``: ``(start, end)`` ranges without live code (init text).
    """
    ranges = tuple(excluded)
    cold: dict[tuple[str, str], list[tuple[int, int]]] = {}
    found: list[tuple[KernelSymbol, tuple[str, ...]]] = []
    for first, others in _group_by_address(symbols):
        aliases: tuple[str, ...] = ()
        if others:
            first, *others = sorted((first, *others), key=_preference)
            aliases = tuple(dict.fromkeys(s.name for s in others if s.name != first.name))
        addr, size, name, _, module = first
        if ranges and any(start <= addr < end for start, end in ranges):
            continue
        if _COLD in name and _is_cold(name):
            cold.setdefault((module, name.partition(_COLD)[0]), []).append((addr, addr + size))
            continue
        found.append((first, aliases))
    return FunctionTable(
        [
            Function(addr, size, name, module or KERNEL_MODULE, aliases, tuple(cold.get((module, name), ())))
            for (addr, size, name, _, module), aliases in found
        ]
    )


class FunctionTable(tuple[Function, ...]):
    """The functions of a kernel by address."""

    @cached_property
    def by_name(self) -> dict[str, list[int]]:
        """The indexes of the functions that have each name, in order."""
        found: dict[str, list[int]] = {}
        for index, function in enumerate(self):
            for name in dict.fromkeys(_names(function)):
                found.setdefault(name, []).append(index)
        return found


class FbtProvider:
    """Publishes entry and return probes of a table of functions."""

    name = "fbt"

    def __init__(self, table: FunctionTable, first_id: int) -> None:
        """Publish the functions of ``table``; ``first_id``: the ID of the first one's entry."""
        self._table = table
        self._first_id = first_id

    @property
    def end_id(self) -> int:
        """The ID after the last one of this provider."""
        return self._first_id + 2 * len(self._table)

    @property
    def functions(self) -> FunctionTable:
        """All functions by address."""
        return self._table

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order."""
        if description.probe_id is not None:
            return
        kinds = [(kind_index, kind) for kind_index, kind in enumerate(_KINDS) if _fits(description.name, kind)]
        if not kinds or not _fits(description.provider, self.name):
            return
        # Written out for speed: a description may name all 40,000 functions.
        for index in matching_functions(self._table, description):
            function = self._table[index]
            first_id = self._first_id + 2 * index
            for kind_index, kind in kinds:
                name = ProbeName(self.name, function.module, function.name, kind)
                yield Probe(first_id + kind_index, name, kind, function)

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        index, kind_index = divmod(probe_id - self._first_id, 2)
        if not 0 <= index < len(self._table):
            return None
        function, kind = self._table[index], _KINDS[kind_index]
        return Probe(probe_id, ProbeName(self.name, function.module, function.name, kind), kind, function)


def matching_functions(table: FunctionTable, description: ProbeDescription) -> Iterator[int]:
    """Yield the index of every function that a description's module and function fields name, in order."""
    module = glob_regex(description.module) if description.module else None
    if is_glob(description.function):
        fitting: Iterable[int] = range(len(table))
        if description.function:
            pattern = glob_regex(description.function)
            fitting = (i for i, f in enumerate(table) if any(map(pattern.fullmatch, _names(f))))
        yield from fitting if module is None else (i for i in fitting if module.fullmatch(table[i].module))
    else:
        # A script may have thousands of descriptions, and a kernel has 40,000 functions.
        named = table.by_name.get(description.function, ())
        yield from (i for i in named if module is None or module.fullmatch(table[i].module))


def _fits(pattern: str, text: str) -> bool:
    return not pattern or glob_regex(pattern).fullmatch(text) is not None


def _names(function: Function) -> Iterator[str]:
    """Yield every name that a description may use for the function."""
    yield function.name
    yield from function.aliases
    if function.name.startswith(SYSCALL_PREFIX):
        yield "sys_" + function.name.removeprefix(SYSCALL_PREFIX)
