"""Publish the provider ``marker``: the static markers of C code (vm/include/probekit/marker.h).

A probe is ``marker:MODULE:FUNCTION:NAME``. ``arg0`` .. ``arg9`` are the marker's arguments, and ``args[]`` has their
types from the format. A damaged marker is a probe as well, and is refused with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

from probekit.kernel.markers import Marker
from probekit.probe.names import ProbeDescription, ProbeName, glob_regex
from probekit.providers.api import KERNEL_MODULE, Probe

__all__ = ("MarkerProvider", "Markers")


class Markers(Protocol):
    """A guest's markers."""

    @property
    def may_exist(self) -> bool:
        """Whether the guest seems to have some, by its symbols alone."""
        ...

    def all(self) -> tuple[Marker, ...]:
        """Read them from the guest."""
        ...


class MarkerProvider:
    """Publishes a guest's markers.

    The guest is searched when a description names this provider, or any provider and markers may exist.
    """

    name = "marker"

    def __init__(self, markers: Markers, ids: Iterator[int]) -> None:
        """Publish ``markers``; ``ids``: gives their IDs when they are read."""
        self._markers = markers
        self._ids = ids
        self._searched = False

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order."""
        if description.probe_id is not None:
            return
        if description.provider:
            if glob_regex(description.provider).fullmatch(self.name) is None:
                return
        elif not self._markers.may_exist:
            return
        yield from (probe for probe in self._probes if description.matches(probe.name))

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        return next((probe for probe in self._probes if probe.id == probe_id), None) if self._searched else None

    @cached_property
    def _probes(self) -> tuple[Probe, ...]:
        self._searched = True
        return tuple(
            Probe(
                next(self._ids),
                ProbeName(self.name, marker.module or KERNEL_MODULE, marker.function, marker.name),
                "marker",
                marker=marker,
            )
            for marker in self._markers.all()
        )
