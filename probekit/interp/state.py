"""Keep what a program has between firings, besides plain global integers: strings, ``self->``, arrays, objects.

    x["a", 1] = 3   ->  one element, which counts against ``dynvarsize``
    x["a", 1] = 0   ->  none any more

One state serves every probe that the host evaluates. Global variables that clauses in a guest use as well live in the
guest: the state asks :class:`SharedVariables` for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from probekit.interp.memory import DEFAULT_SCRATCH, PrivateMemory
from probekit.ir.ops import Program, Variable
from probekit.records import record

__all__ = ("ProgramState", "SharedVariables", "StateLimits", "Value")

Value = int | bytes
"""What a register or variable holds: an integer, or a string without its NUL."""

Key = tuple[Value, ...]
"""The key of an element."""

_OVERHEAD = 32
"""Bytes that each dynamic variable counts besides its key and value, about what DTrace's bookkeeping adds."""


@record
class StateLimits:
    """How much a program may keep."""

    dynvarsize: int = 1 << 20
    """Bytes for the elements of arrays and for ``self->``."""
    scratchsize: int = DEFAULT_SCRATCH
    """Bytes of scratch memory for one clause."""


DEFAULT_LIMITS = StateLimits()
"""The limits without any options."""


class SharedVariables(Protocol):
    """The variables that live in a guest: strings, arrays and objects of ``global`` scope, but no integers."""

    def owns(self, var: int) -> bool:
        """Return True when the variable lives in the guest."""
        ...

    def load(self, var: int) -> Value:
        """Return the value of a string."""
        ...

    def store(self, var: int, value: Value) -> None:
        """Assign a string."""
        ...

    def load_element(self, var: int, key: Key) -> Value:
        """Return an element; 0 or an empty string when there is none."""
        ...

    def store_element(self, var: int, key: Key, value: Value) -> bool:
        """Assign an element; 0 or an empty string frees it. Return False when there is no room for it."""
        ...

    def element_address(self, var: int, key: Key, *, create: bool) -> int:
        """Return the address of an element that is an object; 0 when there is none, or no room for one."""
        ...

    def address(self, var: int) -> int:
        """Return the address of an object."""
        ...

    def read(self, addr: int, size: int) -> bytes | None:
        """Return bytes of these variables; None outside them."""
        ...

    def write(self, addr: int, data: bytes) -> bool:
        """Change objects. Return False where a script may not write."""
        ...


@dataclass(slots=True)
class ProgramState:
    """Everything that a program keeps on the host."""

    program: Program
    """The program."""
    limits: StateLimits = DEFAULT_LIMITS
    """How much it may keep."""
    memory: PrivateMemory = field(init=False)
    """The memory that its clauses may use."""
    drops: int = 0
    """How many dynamic variables found no room."""
    strtok_rest: bytes | None = None
    """What ``strtok()`` goes on with; None when nothing is left."""
    thread: int = 0
    """The thread whose variables ``self->`` are now."""
    guest_variables: SharedVariables | None = None
    """The variables that live in a guest; None when there are none."""
    _scalars: dict[int, Value] = field(default_factory=dict)
    _threads: dict[Key, Value] = field(default_factory=dict)
    _arrays: dict[int, dict[Key, Value]] = field(default_factory=dict)
    _objects: dict[tuple[int, int], int] = field(default_factory=dict)
    _locals: dict[tuple[int, int], int] = field(default_factory=dict)
    _used: int = 0

    def __post_init__(self) -> None:
        self.memory = PrivateMemory(self.limits.scratchsize)

    def _in_guest(self, var: int) -> SharedVariables | None:
        """Return the guest's variables when this variable is one of them."""
        variables = self.guest_variables
        return variables if variables is not None and variables.owns(var) else None

    # Scalars.

    def load(self, var: int) -> Value:
        """Return the value of a string, or of a variable of the thread; empty or 0 before the first assignment."""
        if (guest := self._in_guest(var)) is not None:
            return guest.load(var)
        of_thread = self.program.variables[var].scope == "self"
        found = self._threads.get((self.thread, var)) if of_thread else self._scalars.get(var)
        if found is not None:
            return found
        return b"" if self.program.variables[var].kind == "string" else 0

    def store(self, var: int, value: Value) -> None:
        """Assign a string, or a variable of the thread; 0 or an empty string frees the latter."""
        variable = self.program.variables[var]
        if variable.scope == "self":
            self._set_dynamic(self._threads, (self.thread, var), value, variable.size)
        elif (guest := self._in_guest(var)) is not None:
            guest.store(var, value)
        else:
            self._scalars[var] = value

    def _set_dynamic(self, table: dict[Key, Value], key: Key, value: Value, size: int) -> bool:
        """Assign a dynamic variable, or free it. Return False when it is freed, or has no room."""
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
        """Return an element; 0 or an empty string when there is none."""
        if (guest := self._in_guest(var)) is not None:
            return guest.load_element(var, key)
        found = self._arrays.get(var, {}).get(self._with_thread(var, key))
        if found is not None:
            return found
        return b"" if self.program.variables[var].kind == "string" else 0

    def store_element(self, var: int, key: Key, value: Value) -> None:
        """Assign an element; 0 or an empty string frees it."""
        if (guest := self._in_guest(var)) is not None:
            self.drops += not guest.store_element(var, key, value)
            return
        key = self._with_thread(var, key)
        self._set_dynamic(self._arrays.setdefault(var, {}), key, value, _cost(self.program.variables[var], key))

    def _with_thread(self, var: int, key: Key) -> Key:
        """Return the key, with the thread before it when the array belongs to threads."""
        return (self.thread, *key) if self.program.variables[var].scope == "self" else key

    def element_address(self, var: int, key: Key, *, create: bool) -> int:
        """Return the address of an element that is an object; 0 when there is none, or no room for one."""
        if (guest := self._in_guest(var)) is not None:
            addr = guest.element_address(var, key, create=create)
            self.drops += create and not addr
            return addr
        key = self._with_thread(var, key)
        table = self._arrays.setdefault(var, {})
        found = table.get(key)
        if isinstance(found, int) or not create:
            return found if isinstance(found, int) else 0
        variable = self.program.variables[var]
        addr = self.memory.allocate_object(variable.size)
        if not self._set_dynamic(table, key, addr, _cost(variable, key)):
            self.memory.free(addr)
            return 0
        return addr

    # Objects.

    def address(self, var: int) -> int:
        """Return the address of a variable that is an object; the object is all zero at first."""
        if (guest := self._in_guest(var)) is not None:
            return guest.address(var)
        variable = self.program.variables[var]
        table = self._locals if variable.scope == "local" else self._objects
        key = (self.thread if variable.scope == "self" else 0, var)
        if key not in table:
            make = self.memory.allocate_local if variable.scope == "local" else self.memory.allocate_object
            table[key] = make(variable.size)
        return table[key]

    # Sharing with a guest.

    def move_to_guest(self, variables: SharedVariables) -> None:
        """Move the values of variables that live in a guest there, and use those in the guest from now on."""
        for var, value in self._scalars.items():
            if variables.owns(var):
                variables.store(var, value)
        for (_, var), addr in self._objects.items():
            if variables.owns(var):
                variables.write(variables.address(var), self.memory.read(addr, self.program.variables[var].size))
        for var, table in self._arrays.items():
            if not variables.owns(var):
                continue
            variable = self.program.variables[var]
            for key, value in table.items():
                if variable.kind != "object":
                    self.drops += not variables.store_element(var, key, value)
                elif isinstance(value, int) and (there := variables.element_address(var, key, create=True)):
                    variables.write(there, self.memory.read(value, variable.size))
        self.guest_variables = variables
        self.memory.variables = variables

    def end_firing(self) -> None:
        """Free the objects of ``this->``, and forget what ``strtok()`` would go on with."""
        self.strtok_rest = None
        self._locals.clear()
        self.memory.end_firing()


def _cost(variable: Variable, key: Key) -> int:
    """Return the bytes that an element counts."""
    return variable.size + sum(len(k) + 1 if isinstance(k, bytes) else 8 for k in key)
