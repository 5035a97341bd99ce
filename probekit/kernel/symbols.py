"""The table of kernel and module symbols: compact, sorted by address, never changed.

Symbols are columns (addresses, names, type letters, module numbers), and a
:class:`Symbol` object exists only while someone looks at one. Terms:

*alias*
    One of several names at one address (``__x64_sys_read`` and ``__do_sys_read``).
*duplicate*
    One name at several addresses (static functions of different files).
*type letter*
    nm's: ``t T w W`` text, ``d D b B r R v V`` data, ``a A`` absolute. Capital: global.

kallsyms has no sizes: a symbol reaches to the next address that has one, but
not further than a cap, so that padding at a section's end is nobody's.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from operator import attrgetter, itemgetter
from typing import NamedTuple

from probekit.errors import SymbolError
from probekit.kernel.kallsyms import RawSymbols

__all__ = ("ModuleSymbols", "Symbol", "SymbolTable", "is_padding_name")

_TEXT_TYPES = frozenset("tTwW")
_TEXT_CAP = 64 << 10
_DATA_CAP = 4 << 20
# CALL_PADDING (commit b341b20d648b, v6.2) and kCFI (commit 3c516f89e17e, v6.1) name the bytes *before* a function.
_PADDING_PREFIXES = ("__pfx_", "__cfi_")


def is_padding_name(name: str) -> bool:
    """True for a name of the bytes before a function, which is not a function."""
    return name.startswith(_PADDING_PREFIXES)


class Symbol(NamedTuple):
    """One symbol. ``module`` is empty for the kernel itself. ``size`` is 0 when nothing bounds it."""

    addr: int
    size: int
    name: str
    type_char: str
    module: str = ""

    @property
    def is_text(self) -> bool:
        return self.type_char in _TEXT_TYPES

    @property
    def end(self) -> int:
        return self.addr + self.size

    def __str__(self) -> str:
        return f"{self.module}`{self.name}" if self.module else self.name


@dataclass(frozen=True, slots=True)
class ModuleSymbols:
    """A loaded module's table, in any order. ``sizes``: from its ELF symbols, 0 where unknown."""

    module: str
    addrs: Sequence[int]
    names: Sequence[str]
    types: str
    sizes: Sequence[int]


class SymbolTable:
    """All symbols, sorted by address; equal addresses keep kallsyms order."""

    __slots__ = ("_addrs", "_by_name", "_first", "_modules", "_names", "_owners", "_sizes", "_types")

    def __init__(self, kernel: RawSymbols, modules: Sequence[ModuleSymbols] = ()) -> None:
        rows = [
            (addr, name, letter, number, size)
            for number, module in enumerate(modules, 1)
            for addr, name, letter, size in zip(module.addrs, module.names, module.types, module.sizes, strict=True)
        ]
        if rows and len(kernel) and min(rows)[0] < kernel.addrs[-1]:
            # Never on x86-64, where modules are above the kernel; but the guest says where they are.
            rows += zip(kernel.addrs, kernel.names, kernel.types, repeat(0), repeat(0), strict=False)
            kernel = RawSymbols(array("Q"), [], "", kernel.encoding)
        rows.sort(key=itemgetter(0))
        first = self._first = len(kernel)
        self._addrs = kernel.addrs + array("Q", [row[0] for row in rows])
        self._names = kernel.names + [row[1] for row in rows]
        self._types = kernel.types + "".join([row[2] for row in rows])
        self._owners = array("H", bytes(2 * first)) + array("H", [row[3] for row in rows])
        self._sizes = {first + i: row[4] for i, row in enumerate(rows) if row[4]}
        self._modules = ("", *(module.module for module in modules))
        self._by_name: _Index = {}

    def with_modules(self, kernel: RawSymbols, modules: Sequence[ModuleSymbols]) -> SymbolTable:
        """This table is ``kernel``'s; the one with ``modules`` too, which uses what was made of the names here."""
        table = SymbolTable(kernel, modules)
        if self._by_name and table._first == len(self):
            table._by_name = _extended(self._by_name, table._names, table._first)
        return table

    def __len__(self) -> int:
        return len(self._addrs)

    def __getitem__(self, index: int) -> Symbol:
        return Symbol(
            addr=self._addrs[index],
            size=self._size(index),
            name=self._names[index],
            type_char=self._types[index],
            module=self._modules[self._owners[index]],
        )

    def __iter__(self) -> Iterator[Symbol]:
        return map(self.__getitem__, range(len(self)))

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose symbols are in the table."""
        return self._modules[1:]

    def find(self, name: str, module: str | None = None) -> tuple[Symbol, ...]:
        """Every symbol with exactly this name, by address. ``module``: only there (empty: the kernel itself)."""
        found = tuple(self[index] for index in self._indices(name))
        return found if module is None else tuple(symbol for symbol in found if symbol.module == module)

    def in_modules(self, prefix: str) -> bool:
        """Whether a module has a symbol whose name begins so."""
        return any(name.startswith(prefix) for name in self._names[self._first :])

    def addr(self, name: str) -> int | None:
        """The address of the kernel's first symbol with this name (a module's if the kernel has none)."""
        indices = self._indices(name)
        kernel = [index for index in indices if not self._owners[index]]
        return self._addrs[(kernel or indices)[0]] if indices else None

    def at(self, addr: int) -> tuple[Symbol, ...]:
        """All aliases that begin exactly at ``addr``."""
        first = bisect_left(self._addrs, addr)
        return tuple(self[index] for index in range(first, bisect_right(self._addrs, addr, lo=first)))

    def lookup(self, addr: int) -> tuple[Symbol, int] | None:
        """The symbol that holds ``addr``, and the offset into it; of several aliases the first."""
        index = bisect_right(self._addrs, addr) - 1
        if index < 0:
            return None
        index = bisect_left(self._addrs, self._addrs[index])
        offset = addr - self._addrs[index]
        size = self._size(index)
        return (self[index], offset) if offset < size or (size == 0 and offset == 0) else None

    def text(self, module: str | None = None) -> Iterator[Symbol]:
        """Text symbols by address, aliases included, names of padding excluded. ``module`` as in :meth:`find`."""
        addrs, names, owners, modules, sizes = self._addrs, self._names, self._owners, self._modules, self._sizes
        end = len(addrs)
        for index, letter in enumerate(self._types):
            if letter not in _TEXT_TYPES:
                continue
            name = names[index]
            if name[:2] == "__" and name.startswith(_PADDING_PREFIXES):
                continue
            owner = modules[owners[index]]
            if module is not None and owner != module:
                continue
            addr = addrs[index]
            size = sizes.get(index, 0)
            if not size:  # as _size() has it, by looking ahead instead of a search: a kernel has 50,000 of them
                after = index + 1
                while after < end and addrs[after] == addr:
                    after += 1
                size = min(addrs[after] - addr, _TEXT_CAP) if after < end else 0
            yield Symbol(addr, size, name, letter, owner)

    def text_addrs(self) -> frozenset[int]:
        """Where text symbols are, those of padding included: no object is made for each."""
        return frozenset(addr for addr, letter in zip(self._addrs, self._types, strict=True) if letter in _TEXT_TYPES)

    def functions(self, module: str | None = None) -> Iterator[tuple[Symbol, ...]]:
        """Text symbols grouped by address: one group per place, its aliases in kallsyms order."""
        for _, group in groupby(self.text(module), key=attrgetter("addr")):
            yield tuple(group)

    def range(self, start: str, end: str) -> tuple[int, int] | None:
        """The range between two boundary symbols such as ``__start_BTF`` and ``__stop_BTF``; None if one is absent."""
        low, high = self.addr(start), self.addr(end)
        return (low, high) if low is not None and high is not None and low <= high else None

    def columns(self) -> tuple[array[int], list[str], str]:
        """Addresses, names and type letters, for bulk work. Not to be changed."""
        return self._addrs, self._names, self._types

    def _indices(self, name: str) -> tuple[int, ...]:
        if not self._by_name:
            self._by_name = _name_index(self._names)
        found = self._by_name.get(name, ())
        return (found,) if isinstance(found, int) else found

    def _size(self, index: int) -> int:
        known = self._sizes.get(index)
        if known:
            return known
        addr = self._addrs[index]
        after = bisect_right(self._addrs, addr, lo=index)
        if after == len(self._addrs):
            return 0
        return min(self._addrs[after] - addr, _TEXT_CAP if self._types[index] in _TEXT_TYPES else _DATA_CAP)


_Index = dict[str, int | tuple[int, ...]]
"""Name to its index, or to all of them in order when it is a duplicate."""


def _extended(index: _Index, names: Sequence[str], first: int) -> _Index:
    """``index``, which has the names before ``first``, with the others."""
    more = dict(index)
    for number in range(first, len(names)):
        before = more.get(names[number])
        known = () if before is None else (before,) if isinstance(before, int) else before
        more[names[number]] = (*known, number) if known else number
    return more


def _name_index(names: Sequence[str]) -> _Index:
    index: _Index = dict(zip(reversed(names), range(len(names) - 1, -1, -1), strict=True))
    if len(index) == len(names):
        return index
    for number, name in enumerate(names):
        first = index[name]
        if first != number:
            index[name] = (*((first,) if isinstance(first, int) else first), number)
    return index


def require(table: SymbolTable, *names: str) -> int:
    """The address of the first of ``names`` that exists, or :class:`SymbolError` naming them all."""
    for name in names:
        addr = table.addr(name)
        if addr is not None:
            return addr
    raise SymbolError(f"this kernel has no symbol {' or '.join(names)}")
