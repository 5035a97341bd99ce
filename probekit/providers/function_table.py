"""Hold the functions of a kernel as columns: a kernel has 50,000, and most programs look at a few.

A :class:`~probekit.providers.api.Function` is made when somebody takes it from the table. There is one for each
address: its other names (aliases) match as well, and its name is the one that :func:`_preference` puts first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

from probekit.kernel.symbols import SymbolRow
from probekit.kernel.syscalls import call_function
from probekit.probe.names import ProbeDescription, glob_regex, is_glob
from probekit.providers.api import KERNEL_MODULE, Function

__all__ = ("SYSCALL_PREFIX", "FunctionTable", "function_table", "matching_functions")

SYSCALL_PREFIX = "__x64_sys_"
"""The prefix of the functions of system calls (commit d5a00528b58c, v4.17)."""
_SHORT_PREFIX = "sys_"
_COLD = ".cold"


class FunctionTable(Sequence[Function]):
    """The functions of a kernel by address."""

    def __init__(self, functions: Iterable[Function] = ()) -> None:
        """Make a table of ``functions``, which are in order of their addresses."""
        self.addrs: list[int] = []
        """The address of each function."""
        self._sizes: list[int] = []
        self._names: list[str] = []
        self._modules: list[str] = []
        self._aliases: dict[int, tuple[str, ...]] = {}
        self._cold: dict[tuple[str, str], tuple[tuple[int, int], ...]] = {}
        for function in functions:
            self.append(function[:4], function.aliases)
            if function.cold:
                self._cold[function.module, function.name] = function.cold

    def append(self, columns: tuple[int, int, str, str], aliases: tuple[str, ...] = ()) -> None:
        """Add a function after all others: its address, size, name and module, and the other names."""
        addr, size, name, module = columns
        if aliases:
            self._aliases[len(self.addrs)] = aliases
        self.addrs.append(addr)
        self._sizes.append(size)
        self._names.append(name)
        self._modules.append(module)

    def add_cold(self, module: str, name: str, parts: tuple[tuple[int, int], ...]) -> None:
        """Add ``(start, end)`` of parts that the compiler split off the functions of this name."""
        self._cold[module, name] = self._cold.get((module, name), ()) + parts

    def __len__(self) -> int:
        return len(self.addrs)

    @overload
    def __getitem__(self, index: int) -> Function: ...

    @overload
    def __getitem__(self, index: slice) -> list[Function]: ...

    def __getitem__(self, index: int | slice) -> Function | list[Function]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        name, module = self._names[index], self._modules[index]
        aliases = self._aliases.get(index, ()) if self._aliases else ()
        return Function(
            self.addrs[index], self._sizes[index], name, module, aliases, self._cold.get((module, name), ())
        )

    def __iter__(self) -> Iterator[Function]:
        return map(self.__getitem__, range(len(self)))

    def in_module(self, index: int) -> str:
        """Return the module of a function, as D shows it."""
        return self._modules[index]

    def named(self, name: str) -> list[int]:
        """Return the indexes of the functions that a description means by exactly this name, in order."""
        found = {*self._indexes(name), *self._alias_indexes.get(name, ())}
        if name.startswith(_SHORT_PREFIX):
            found.update(self._indexes(SYSCALL_PREFIX + name.removeprefix(_SHORT_PREFIX)))
        return sorted(found)

    def named_like(self, pattern: str) -> list[int]:
        """Return the indexes of the functions with a name that the glob ``pattern`` fits, in order."""
        fits = glob_regex(pattern).fullmatch
        found = {index for index, name in enumerate(self._names) if fits(name)}
        found.update(index for index, names in self._aliases.items() if any(map(fits, names)))
        found.update(index for index, name in self._system_calls if fits(name))
        return sorted(found)

    def system_calls(self) -> dict[str, list[int]]:
        """Return the indexes of the functions of each system call, those for 64-bit programs first, else in order.

        A function that has names of several ways in is there once.
        """
        native: dict[str, list[int]] = {}
        others: dict[str, list[int]] = {}
        for index, name in enumerate(self._names):
            if name[:2] != "__":
                continue
            found = call_function(name) or next(filter(None, map(call_function, self._aliases.get(index, ()))), None)
            if found is not None:
                (native if found.abi == "64-bit" else others).setdefault(found.call, []).append(index)
        for call, indexes in others.items():
            native.setdefault(call, []).extend(indexes)
        return native

    @cached_property
    def _system_calls(self) -> list[tuple[int, str]]:
        """The index and the short name of each."""
        cut = len(SYSCALL_PREFIX)
        return [(i, _SHORT_PREFIX + n[cut:]) for i, n in enumerate(self._names) if n.startswith(SYSCALL_PREFIX)]

    def _indexes(self, name: str) -> Sequence[int]:
        first = self._first_of_name.get(name)
        return () if first is None else self._duplicates.get(name) or (first,)

    @cached_property
    def _first_of_name(self) -> dict[str, int]:
        return dict(zip(reversed(self._names), range(len(self._names) - 1, -1, -1), strict=True))

    @cached_property
    def _duplicates(self) -> dict[str, list[int]]:
        """All indexes of each name that several functions have (static functions of different files)."""
        first, found = self._first_of_name, dict[str, list[int]]()
        if len(first) != len(self._names):
            for index, name in enumerate(self._names):
                if first[name] != index:
                    found.setdefault(name, [first[name]]).append(index)
        return found

    @cached_property
    def _alias_indexes(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for index, names in self._aliases.items():
            for name in names:
                found.setdefault(name, []).append(index)
        return found


def function_table(symbols: Iterable[SymbolRow], excluded: Iterable[tuple[int, int]] = ()) -> FunctionTable:
    """Return the functions of a kernel by address, with ``.cold`` parts as part of their function.

    ``symbols``: text symbols by address; ``excluded``: ``(start, end)`` ranges without live code (init text).
    """
    ranges = tuple(excluded)
    table = FunctionTable()
    append = table.append
    for first, others in _group_by_address(symbols):
        aliases: tuple[str, ...] = ()
        if others:
            first, *others = sorted((first, *others), key=_preference)
            aliases = tuple(dict.fromkeys(row[2] for row in others if row[2] != first[2]))
        addr, size, name, _, module = first
        for start, end in ranges:
            if start <= addr < end:
                break
        else:
            if _COLD in name and _is_cold(name):
                table.add_cold(module or KERNEL_MODULE, name.partition(_COLD)[0], ((addr, addr + size),))
            else:
                append((addr, size, name, module or KERNEL_MODULE), aliases)
    return table


def matching_functions(table: FunctionTable, description: ProbeDescription) -> Iterator[int]:
    """Yield the index of every function that a description's module and function fields name, in order."""
    module = glob_regex(description.module) if description.module else None
    if not is_glob(description.function):
        found: Iterable[int] = table.named(description.function)
    elif description.function:
        found = table.named_like(description.function)
    else:
        found = range(len(table))
    yield from found if module is None else (i for i in found if module.fullmatch(table.in_module(i)))


def _preference(symbol: SymbolRow) -> tuple[bool, bool]:
    """Sort several names of one address: the native system call first, then the global one."""
    return (not symbol[2].startswith(SYSCALL_PREFIX), symbol[3] != "T")


def _is_cold(name: str) -> bool:
    return _COLD in name and name.partition(_COLD)[2].lstrip(".").isdecimal() | name.endswith(_COLD)


def _group_by_address(symbols: Iterable[SymbolRow]) -> Iterator[tuple[SymbolRow, Sequence[SymbolRow]]]:
    """Yield the first symbol at each address, and the others there."""
    first: SymbolRow | None = None
    others: Sequence[SymbolRow] = ()
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
