"""Publish the provider ``tracepoint``: ``tracepoint:SYSTEM::NAME``, such as ``tracepoint:sched::sched_switch``.

The module field is the trace system that the event belongs to; for a tracepoint without
an event it is the module that has it, ``vmlinux`` for the kernel itself.
``arg0`` .. ``arg9`` are the tracepoint's arguments.

The guest's tracepoints are read when a description may name one, not before.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

from probekit.kernel.tracepoints import Tracepoint
from probekit.probe.names import ProbeDescription, ProbeName, glob_regex, is_glob
from probekit.providers.api import KERNEL_MODULE, Probe

__all__ = ("TracepointProvider", "Tracepoints")


class Tracepoints(Protocol):
    """A guest's tracepoints."""

    @property
    def count(self) -> int:
        """How many :meth:`all` returns; known without reading the guest."""
        ...

    def may_exist(self, name: str) -> bool:
        """Tell whether there may be one of this name, without reading the guest."""
        ...

    def all(self) -> tuple[Tracepoint, ...]:
        """Read them from the guest."""
        ...


class TracepointProvider:
    """Publishes a guest's tracepoints."""

    name = "tracepoint"

    def __init__(self, tracepoints: Tracepoints, first_id: int) -> None:
        """Publish ``tracepoints``; ``first_id``: the ID of the first one."""
        self._tracepoints = tracepoints
        self._first_id = first_id

    @property
    def end_id(self) -> int:
        """The ID after the last one of this provider."""
        return self._first_id + self._tracepoints.count

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order."""
        if description.probe_id is not None or description.function or not self._tracepoints.count:
            return
        if description.provider and glob_regex(description.provider).fullmatch(self.name) is None:
            return
        if not is_glob(description.name) and not self._tracepoints.may_exist(description.name):
            return
        yield from (probe for probe in self._probes if probe.name.name and description.matches(probe.name))

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        if not self._first_id <= probe_id < self.end_id:
            return None
        probe = self._probes[probe_id - self._first_id]
        return probe if probe.name.name else None

    @cached_property
    def _probes(self) -> tuple[Probe, ...]:
        """Make the probes, in the kernel's order, so that IDs do not change while it runs."""
        return tuple(
            Probe(
                self._first_id + index,
                ProbeName(self.name, tracepoint.system or tracepoint.module or KERNEL_MODULE, "", tracepoint.name),
                "tracepoint",
                tracepoint=tracepoint,
            )
            for index, tracepoint in enumerate(self._tracepoints.all())
        )
