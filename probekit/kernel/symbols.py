"""Hold the symbols of the kernel and its modules in a compact table, sorted by address and never changed.

Symbols are columns (addresses, names, type letters, module numbers), and a
:class:`KernelSymbol` object exists only while someone looks at one. Terms:

*alias*
    One of several names at one address (``__x64_sys_read`` and ``__do_sys_read``).
*duplicate*
    One name at several addresses (static functions of different files).
*type letter*
    nm's: ``t T w W`` text, ``d D b B r R v V`` data, ``a A`` absolute. Capital: global.

kallsyms has no sizes: a symbol reaches to the next address that has one, but
not further than a cap, so that padding at a section's end belongs to no symbol.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple

from probekit.errors import SymbolError
from probekit.kernel.kallsyms import RawSymbols

__all__ = ("KernelSymbol", "ModuleSymbols", "SymbolRow", "SymbolTable", "require_symbol")

_TEXT_TYPES = frozenset("tTwW")
_TEXT_CAP = 64 << 10
_DATA_CAP = 4 << 20
# CALL_PADDING (commit b341b20d648b, v6.2) and kCFI (commit 3c516f89e17e, v6.1) name the bytes *before* a function.
_PADDING_PREFIXES = ("__pfx_", "__cfi_")


SymbolRow = tuple[int, int, str, str, str]
"""The fields of a :class:`KernelSymbol`, in that order, as a plain tuple, which costs a third."""


class KernelSymbol(NamedTuple):
    """One symbol of the kernel or of a module."""

    addr: int
    size: int
    """Bytes; 0 when nothing bounds it."""
    name: str
    type_char: str
    """The type letter of nm."""
    module: str = ""
    """Empty for the kernel itself."""

    @property
    def is_text(self) -> bool:
        """Whether it names code."""
        return self.type_char in _TEXT_TYPES

    @property
    def end(self) -> int:
        """The address after it."""
        return self.addr + self.size

    def __str__(self) -> str:
        return f"{self.module}`{self.name}" if self.module else self.name


@dataclass(frozen=True, slots=True)
class ModuleSymbols:
    """The symbols of a loaded module as columns, in any order."""

    module: str
    """The module's name."""
    addrs: Sequence[int]
    """The address of each symbol."""
    names: Sequence[str]
    """The name of each symbol."""
    types: str
    """One type letter of nm for each symbol."""
    sizes: Sequence[int]
    """Bytes, from the module's ELF symbols; 0 where unknown."""


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
        """Return a table of ``kernel``, whose symbols alone are in this one, and of ``modules``.

        It reuses the index of names if this table has made one.
        """
        table = SymbolTable(kernel, modules)
        if self._by_name and table._first == len(self):
            table._by_name = _extended(self._by_name, table._names, table._first)
        return table

    def __len__(self) -> int:
        return len(self._addrs)

    def __getitem__(self, index: int) -> KernelSymbol:
        return KernelSymbol(
            addr=self._addrs[index],
            size=self._size(index),
            name=self._names[index],
            type_char=self._types[index],
            module=self._modules[self._owners[index]],
        )

    def __iter__(self) -> Iterator[KernelSymbol]:
        return map(self.__getitem__, range(len(self)))

    def find(self, name: str, module: str | None = None) -> tuple[KernelSymbol, ...]:
        """Return every symbol with exactly this name, by address. ``module``: only its own (empty: the kernel's)."""
        found = tuple(self[index] for index in self._indices(name))
        return found if module is None else tuple(symbol for symbol in found if symbol.module == module)

    def in_modules(self, prefix: str) -> bool:
        """Tell whether a module has a symbol whose name begins with ``prefix``."""
        return any(name.startswith(prefix) for name in self._names[self._first :])

    def addr(self, name: str) -> int | None:
        """Return the address of the kernel's first symbol with this name, else of a module's, else None."""
        indices = self._indices(name)
        kernel = [index for index in indices if not self._owners[index]]
        return self._addrs[(kernel or indices)[0]] if indices else None

    def lookup(self, addr: int) -> tuple[KernelSymbol, int] | None:
        """Return the symbol that holds ``addr`` and the offset into it, or None; of several aliases the first."""
        index = bisect_right(self._addrs, addr) - 1
        if index < 0:
            return None
        index = bisect_left(self._addrs, self._addrs[index])
        offset = addr - self._addrs[index]
        size = self._size(index)
        return (self[index], offset) if offset < size or (size == 0 and offset == 0) else None

    def text(self, module: str | None = None) -> Iterator[KernelSymbol]:
        """Yield text symbols by address, with aliases, without names of padding. ``module``: as in :meth:`find`."""
        return map(KernelSymbol._make, self.text_rows(module))

    def text_rows(self, module: str | None = None) -> Iterator[SymbolRow]:
        """Yield what :meth:`text` yields as plain tuples."""
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
            yield addr, size, name, letter, owner

    def text_addrs(self) -> frozenset[int]:
        """Return the addresses of all text symbols, padding included, without making an object for each."""
        return frozenset(addr for addr, letter in zip(self._addrs, self._types, strict=True) if letter in _TEXT_TYPES)

    def range(self, start: str, end: str) -> tuple[int, int] | None:
        """Return the range between two boundary symbols (``__start_BTF``, ``__stop_BTF``); None if one is absent."""
        low, high = self.addr(start), self.addr(end)
        return (low, high) if low is not None and high is not None and low <= high else None

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
"""From each name to its index, or to all of its indices in order when it is a duplicate."""


def _extended(index: _Index, names: Sequence[str], first: int) -> _Index:
    """Return ``index``, which has the names before ``first``, with the other names added."""
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


def require_symbol(table: SymbolTable, *names: str) -> int:
    """Return the address of the first of ``names`` that exists. Raises :class:`SymbolError`, which names them all."""
    for name in names:
        addr = table.addr(name)
        if addr is not None:
            return addr
    raise SymbolError(f"this kernel has no symbol {' or '.join(names)}")
