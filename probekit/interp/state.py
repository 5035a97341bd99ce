"""What a program keeps between firings, beside plain global integers: strings, ``self->``, arrays, objects.

    x["a", 1] = 3   ->  one element, which counts against ``dynvarsize``
    x["a", 1] = 0   ->  none again

One state serves every probe that the host evaluates; all of them run on one thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from probekit.interp.memory import DEFAULT_SCRATCH, Memory
from probekit.ir.ops import Program, Variable

__all__ = ("Limits", "State", "Value")

Value = int | bytes
"""What a register or variable holds: an integer, or a string without its NUL."""

Key = tuple[Value, ...]
_K = TypeVar("_K")

_OVERHEAD = 32
"""Bytes that DTrace's own bookkeeping adds to each dynamic variable, about."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``dynvarsize``: bytes for elements and ``self->``; ``scratchsize``: for one clause."""

    dynvarsize: int = 1 << 20
    scratchsize: int = DEFAULT_SCRATCH


@dataclass(slots=True)
class State:
    """``drops``: elements that found no room; ``token``: what ``strtok()`` goes on with."""

    program: Program
    limits: Limits = Limits()
    memory: Memory = field(init=False)
    drops: int = 0
    token: bytes | None = None
    _scalars: dict[int, Value] = field(default_factory=dict)
    _arrays: dict[int, dict[Key, Value]] = field(default_factory=dict)
    _objects: dict[int, int] = field(default_factory=dict)
    _locals: dict[int, int] = field(default_factory=dict)
    _used: int = 0

    def __post_init__(self) -> None:
        self.memory = Memory(self.limits.scratchsize)

    # Scalars.

    def load(self, var: int) -> Value:
        """A string, or a variable of the thread."""
        found = self._scalars.get(var)
        if found is not None:
            return found
        return b"" if self.program.variables[var].kind == "string" else 0

    def store(self, var: int, value: Value) -> None:
        """Assign it; 0 frees what belongs to a thread."""
        variable = self.program.variables[var]
        if variable.scope == "self":
            self._keep(self._scalars, var, value, variable.size)
        else:
            self._scalars[var] = value

    def _keep(self, table: dict[_K, Value], key: _K, value: Value, size: int) -> bool:
        """Put a dynamic variable into its table, or take it out."""
        cost = _OVERHEAD + size
        if not value:
            if table.pop(key, None) is not None:
                self._used -= cost
            return False
        if key not in table:
            if self._used + cost > self.limits.dynvarsize:
                self.drops += 1
                return False
            self._used += cost
        table[key] = value
        return True

    # Arrays.

    def load_element(self, var: int, key: Key) -> Value:
        """An element, 0 or empty when there is none."""
        found = self._arrays.get(var, {}).get(key)
        if found is not None:
            return found
        return b"" if self.program.variables[var].kind == "string" else 0

    def store_element(self, var: int, key: Key, value: Value) -> None:
        """Assign an element; 0 frees it."""
        self._keep(self._arrays.setdefault(var, {}), key, value, _cost(self.program.variables[var], key))

    def element_address(self, var: int, key: Key, *, create: bool) -> int:
        """Where an element that is an object lies; 0 when there is none, or no room for one."""
        table = self._arrays.setdefault(var, {})
        found = table.get(key)
        if isinstance(found, int) or not create:
            return found if isinstance(found, int) else 0
        variable = self.program.variables[var]
        addr = self.memory.object(variable.size)
        if not self._keep(table, key, addr, _cost(variable, key)):
            self.memory.free(addr)
            return 0
        return addr

    # Objects.

    def address(self, var: int) -> int:
        """Where a variable that is an object lies; all zero at first."""
        variable = self.program.variables[var]
        table = self._locals if variable.scope == "local" else self._objects
        if var not in table:
            make = self.memory.local if variable.scope == "local" else self.memory.object
            table[var] = make(variable.size)
        return table[var]

    def end_firing(self) -> None:
        """The objects of ``this->`` are gone."""
        self._locals.clear()
        self.memory.end_firing()


def _cost(variable: Variable, key: Key) -> int:
    return variable.size + sum(len(k) + 1 if isinstance(k, bytes) else 8 for k in key)
