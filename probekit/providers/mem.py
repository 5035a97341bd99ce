"""Publish the provider ``mem``: each access to a range of guest memory.

    mem::jiffies:write                      a variable of the kernel, its first 8 bytes
    mem::init_uts_ns-65:read                that many bytes
    mem::0xffffffff82a05980-4:write         an address

Arguments: ``arg0`` the address of the access and ``arg1`` its size, as far as they lie in the range; ``arg2`` and
``arg3`` the old and the new value of these bytes (the first 8 of them); ``arg4`` the address of the instruction.

A probe exists once a description names it in full (the name may be missing), as with ``profile``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from probekit.errors import ProbekitError
from probekit.probe.names import ProbeDescription, ProbeName, glob_regex, is_glob
from probekit.providers.api import Probe, WatchedRange

__all__ = ("MAX_WATCHED", "KernelVariable", "MemError", "MemProvider")

MAX_WATCHED: Final = 1 << 16
"""The most bytes that one probe watches."""

_DEFAULT_SIZE: Final = 8
_ACCESSES: Final[tuple[Literal["read", "write"], ...]] = ("read", "write")
_RANGE: Final = re.compile(r"(?P<at>0x[0-9a-fA-F]{1,16}|[A-Za-z_.$][\w.$]*)(?:-(?P<size>(?:0x)?[0-9a-fA-F]{1,8}))?")
_END: Final = 1 << 64
_KERNEL: Final = 1 << 63


class KernelVariable(NamedTuple):
    """A variable of the kernel or of a module."""

    addr: int
    room: int
    """Bytes up to the next symbol."""
    module: str
    """As D shows it."""


class MemError(ProbekitError):
    """A range that cannot be watched."""

    def __init__(self, range_text: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"mem::{range_text}: {why}", hint=hint)
        self.range_text = range_text
        """The range as the description has it."""


class MemProvider:
    """Publishes the ranges of memory that descriptions name."""

    name = "mem"

    def __init__(self, find_variable: Callable[[str], KernelVariable | None], ids: Iterator[int]) -> None:
        """Publish ranges as they are named.

        ``find_variable``: finds a variable of the kernel by name; ``ids``: gives the IDs of new probes.
        """
        self._find_variable = find_variable
        self._ids = ids
        self._probes: list[Probe] = []

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order. One that names a range in full makes its probes.

        Raises :class:`MemError` for a range that makes no sense.
        """
        if description.provider == self.name and description.function and not is_glob(description.function):
            self._make(description)
        return (probe for probe in list(self._probes) if description.matches(probe.name))

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        return next((probe for probe in self._probes if probe.id == probe_id), None)

    def _make(self, description: ProbeDescription) -> None:
        range_text = description.function
        wanted = [a for a in _ACCESSES if not description.name or glob_regex(description.name).fullmatch(a)]
        known = {probe.name for probe in self._probes}
        found = self._parse(range_text) if wanted else None
        if found is None:
            return
        addr, size, module = found
        for access in wanted:
            name = ProbeName(self.name, module, range_text, access)
            if name not in known and description.matches(name):
                self._probes.append(Probe(next(self._ids), name, "watch", watched=WatchedRange(addr, size, access)))

    def _parse(self, range_text: str) -> tuple[int, int, str] | None:
        """Return address, size and module; None when it names nothing. Raises :class:`MemError`."""
        match = _RANGE.fullmatch(range_text)
        if match is None:
            return None
        size = _number(match["size"]) if match["size"] else 0
        if match["at"].startswith("0x"):
            addr, room, module = int(match["at"], 16), _DEFAULT_SIZE, ""
        else:
            variable = self._find_variable(match["at"])
            if variable is None:
                return None
            addr, room, module = variable
            if addr < _KERNEL:
                raise MemError(
                    range_text, "it is not at one address", hint="it is a per-CPU variable: give a CPU's address"
                )
        if match["size"] and not 0 < size <= MAX_WATCHED:
            raise MemError(
                range_text, f"cannot watch a range of {size} bytes", hint=f"1 to {MAX_WATCHED} bytes can be watched"
            )
        size = size or min(room, _DEFAULT_SIZE) or 1
        if addr + size > _END or (addr < _KERNEL) != (addr + size <= _KERNEL):
            raise MemError(range_text, "the range does not lie in one half of the address space")
        return addr, size, module


def _number(text: str) -> int:
    """Return a size in decimal or hex; 0, which no range has, for any other text."""
    try:
        return int(text, 0) if text.startswith("0x") else int(text)
    except ValueError:
        return 0
