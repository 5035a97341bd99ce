"""What a program keeps between firings, beside plain global integers: strings, ``self->``, arrays, objects.

    x["a", 1] = 3   ->  one element, which counts against ``dynvarsize``
    x["a", 1] = 0   ->  none again

One state serves every probe that the host evaluates. Global variables that clauses in a guest use as well live
there: the state asks :class:`VariablesElsewhere` for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from probekit.interp.memory import DEFAULT_SCRATCH, PrivateMemory
from probekit.ir.ops import Program, Variable
from probekit.records import record

__all__ = ("ProgramState", "StateLimits", "Value", "VariablesElsewhere")

Value = int | bytes
"""What a register or variable holds: an integer, or a string without its NUL."""

Key = tuple[Value, ...]

_OVERHEAD = 32
"""Bytes that DTrace's own bookkeeping adds to each dynamic variable, about."""


@record
class StateLimits:
    """``dynvarsize``: bytes for elements and ``self->``; ``scratchsize``: for one clause."""

    dynvarsize: int = 1 << 20
    scratchsize: int = DEFAULT_SCRATCH


DEFAULT_LIMITS = StateLimits()


class VariablesElsewhere(Protocol):
    """Global strings, arrays and objects that live in a guest. Integers are kept apart."""

    def owns(self, var: int) -> bool:
        """Whether the variable lives there."""
        ...

    def load(self, var: int) -> Value: ...

    def store(self, var: int, value: Value) -> None: ...

    def load_element(self, var: int, key: Key) -> Value: ...

    def store_element(self, var: int, key: Key, value: Value) -> bool:
        """False when it found no room."""
        ...

    def element_address(self, var: int, key: Key, *, create: bool) -> int: ...

    def address(self, var: int) -> int: ...

    def read(self, addr: int, size: int) -> bytes | None: ...

    def write(self, addr: int, data: bytes) -> bool:
        """False where a script may not write."""
        ...


@dataclass(slots=True)
class ProgramState:
    """``drops``: elements that found no room; ``token``: what ``strtok()`` goes on with.

    ``thread``: whose variables ``self->`` are now; ``shared``: where variables live that a guest shares.
    """

    program: Program
    limits: StateLimits = DEFAULT_LIMITS
    memory: PrivateMemory = field(init=False)
    drops: int = 0
    token: bytes | None = None
    thread: int = 0
    shared: VariablesElsewhere | None = None
    _scalars: dict[int, Value] = field(default_factory=dict)
    _threads: dict[Key, Value] = field(default_factory=dict)
    _arrays: dict[int, dict[Key, Value]] = field(default_factory=dict)
    _objects: dict[tuple[int, int], int] = field(default_factory=dict)
    _locals: dict[tuple[int, int], int] = field(default_factory=dict)
    _used: int = 0

    def __post_init__(self) -> None:
        self.memory = PrivateMemory(self.limits.scratchsize)

    # Scalars.

    def load(self, var: int) -> Value:
        """A string, or a variable of the thread."""
        if (shared := self._elsewhere(var)) is not None:
            return shared.load(var)
        own = self.program.variables[var].scope == "self"
        found = self._threads.get((self.thread, var)) if own else self._scalars.get(var)
        if found is not None:
            return found
        return b"" if self.program.variables[var].kind == "string" else 0

    def store(self, var: int, value: Value) -> None:
        """Assign it; 0 frees what belongs to a thread."""
        variable = self.program.variables[var]
        if variable.scope == "self":
            self._keep(self._threads, (self.thread, var), value, variable.size)
        elif (shared := self._elsewhere(var)) is not None:
            shared.store(var, value)
        else:
            self._scalars[var] = value

    def _elsewhere(self, var: int) -> VariablesElsewhere | None:
        return self.shared if self.shared is not None and self.shared.owns(var) else None

    def _keep(self, table: dict[Key, Value], key: Key, value: Value, size: int) -> bool:
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
        if (shared := self._elsewhere(var)) is not None:
            return shared.load_element(var, key)
        found = self._arrays.get(var, {}).get(self._own(var, key))
        if found is not None:
            return found
        return b"" if self.program.variables[var].kind == "string" else 0

    def store_element(self, var: int, key: Key, value: Value) -> None:
        """Assign an element; 0 frees it."""
        if (shared := self._elsewhere(var)) is not None:
            self.drops += not shared.store_element(var, key, value)
            return
        key = self._own(var, key)
        self._keep(self._arrays.setdefault(var, {}), key, value, _cost(self.program.variables[var], key))

    def _own(self, var: int, key: Key) -> Key:
        """The key of an array that belongs to a thread."""
        return (self.thread, *key) if self.program.variables[var].scope == "self" else key

    def element_address(self, var: int, key: Key, *, create: bool) -> int:
        """Where an element that is an object lies; 0 when there is none, or no room for one."""
        if (shared := self._elsewhere(var)) is not None:
            found_there = shared.element_address(var, key, create=create)
            self.drops += create and not found_there
            return found_there
        key = self._own(var, key)
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
        if (shared := self._elsewhere(var)) is not None:
            return shared.address(var)
        variable = self.program.variables[var]
        table = self._locals if variable.scope == "local" else self._objects
        place = (self.thread if variable.scope == "self" else 0, var)
        if place not in table:
            make = self.memory.local if variable.scope == "local" else self.memory.object
            table[place] = make(variable.size)
        return table[place]

    # Sharing.

    def share(self, shared: VariablesElsewhere) -> None:
        """From now on variables that a guest has live there; what they hold so far goes with them."""
        for var, value in self._scalars.items():
            if shared.owns(var):
                shared.store(var, value)
        for (_, var), addr in self._objects.items():
            if shared.owns(var):
                shared.write(shared.address(var), self.memory.read(addr, self.program.variables[var].size))
        for var, table in self._arrays.items():
            if not shared.owns(var):
                continue
            variable = self.program.variables[var]
            for key, value in table.items():
                if variable.kind != "object":
                    self.drops += not shared.store_element(var, key, value)
                elif isinstance(value, int) and (there := shared.element_address(var, key, create=True)):
                    shared.write(there, self.memory.read(value, variable.size))
        self.shared = shared
        self.memory.shared = shared

    def end_firing(self) -> None:
        """The objects of ``this->`` are gone, and so is what ``strtok()`` would go on with."""
        self.token = None
        self._locals.clear()
        self.memory.end_firing()


def _cost(variable: Variable, key: Key) -> int:
    return variable.size + sum(len(k) + 1 if isinstance(k, bytes) else 8 for k in key)
