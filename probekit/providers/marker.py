"""Provider ``marker``: ``marker:MODULE:FUNCTION:NAME``, the static markers of C code (vm/include/probekit/marker.h).

``arg0`` .. ``arg9`` are the marker's arguments, ``args[]`` has their types from the format.
A marker that is not as it should be is a probe all the same, and refused with its reason.
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
    """A guest's markers; only :meth:`all` looks at the guest. ``likely``: by its symbols it seems to have some."""

    @property
    def likely(self) -> bool: ...

    def all(self) -> tuple[Marker, ...]: ...


class MarkerProvider:
    """The guest is searched once a description names this provider, or any other with markers likely to be there.

    ``numbers``: gives the IDs, which probes have from then on.
    """

    name = "marker"

    def __init__(self, markers: Markers, numbers: Iterator[int]) -> None:
        self._markers = markers
        self._numbers = numbers
        self._searched = False

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """See :class:`probekit.providers.api.Provider`."""
        if description.probe_id is not None:
            return
        if description.provider:
            if glob_regex(description.provider).fullmatch(self.name) is None:
                return
        elif not self._markers.likely:
            return
        yield from (probe for probe in self._probes if description.matches(probe.name))

    def by_id(self, probe_id: int) -> Probe | None:
        """See :class:`probekit.providers.api.Provider`."""
        return next((probe for probe in self._probes if probe.id == probe_id), None) if self._searched else None

    @cached_property
    def _probes(self) -> tuple[Probe, ...]:
        self._searched = True
        return tuple(
            Probe(
                next(self._numbers),
                ProbeName(self.name, marker.module or KERNEL_MODULE, marker.function, marker.name),
                "marker",
                marker=marker,
            )
            for marker in self._markers.all()
        )
