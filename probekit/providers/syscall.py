"""Publish the provider ``syscall``: the entry and the return of every system call.

``syscall::NAME:entry`` has the call's own arguments as ``arg0`` .. ``arg5``: its function gets the registers of
user space, and the arguments are read from there. ``syscall::NAME:return`` has the result as ``arg0`` and ``arg1``.

There is one probe for each name, as in illumos's DTrace, whatever programs call it: it is in the function for 64-bit
programs, ``__x64_sys_NAME``, and in those for 32-bit and x32 programs (:mod:`probekit.kernel.syscalls`). IDs follow
the order of the names' first functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from probekit.probe.names import ProbeDescription, ProbeName, glob_regex
from probekit.providers.api import Function, Probe, ProbeKind
from probekit.providers.function_table import FunctionTable

__all__ = ("SyscallProvider",)

_MAX_SYSCALLS = 1024  # so many IDs are reserved, so that system calls need not be counted at each start
_KINDS: dict[str, ProbeKind] = {"entry": "syscall", "return": "sysret"}


class SyscallProvider:
    """Publishes the entry and the return of every system call."""

    name = "syscall"

    def __init__(self, table: FunctionTable, first_id: int) -> None:
        """Publish the system calls among the functions of ``table``; ``first_id``: the ID of the first one's entry."""
        self._table = table
        self._first_id = first_id

    @property
    def end_id(self) -> int:
        """The ID after the last one of this provider."""
        return self._first_id + len(_KINDS) * _MAX_SYSCALLS

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order."""
        if description.probe_id is not None:
            return
        # Nearly all descriptions name another provider, or a probe that system calls do not have.
        if description.provider and glob_regex(description.provider).fullmatch(self.name) is None:
            return
        if description.name and not any(map(glob_regex(description.name).fullmatch, _KINDS)):
            return
        yield from (probe for probe in self._probes if description.matches(probe.name))

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        index = probe_id - self._first_id
        if not 0 <= index < self.end_id - self._first_id:
            return None
        return self._probes[index] if index < len(self._probes) else None

    @cached_property
    def _probes(self) -> tuple[Probe, ...]:
        calls = sorted(self._table.system_calls().items(), key=lambda item: item[1])[:_MAX_SYSCALLS]
        named = [(call, [self._table[index] for index in indexes], name) for call, indexes in calls for name in _KINDS]
        return tuple(self._probe(self._first_id + number, *probe) for number, probe in enumerate(named))

    def _probe(self, probe_id: int, call: str, functions: Sequence[Function], name: str) -> Probe:
        first, *others = functions
        return Probe(
            probe_id, ProbeName(self.name, first.module, call, name), _KINDS[name], first, others=tuple(others)
        )
