"""Publish the provider ``dtrace``: ``BEGIN``, ``END`` and ``ERROR``, which the host fires."""

from __future__ import annotations

from collections.abc import Iterator

from probekit.probe.names import ProbeDescription, ProbeName
from probekit.providers.api import Probe

__all__ = ("BEGIN", "END", "ERROR", "DtraceProvider")

BEGIN = Probe(1, ProbeName("dtrace", "", "", "BEGIN"), "begin")
END = Probe(2, ProbeName("dtrace", "", "", "END"), "end")
ERROR = Probe(3, ProbeName("dtrace", "", "", "ERROR"), "error")

_PROBES = (BEGIN, END, ERROR)


class DtraceProvider:
    """Publishes the IDs 1, 2 and 3, as every DTrace does."""

    name = "dtrace"

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order."""
        return (probe for probe in _PROBES if description.matches(probe.name))

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        return next((probe for probe in _PROBES if probe.id == probe_id), None)
