"""Provider ``dtrace``: ``BEGIN``, ``END`` and ``ERROR``, fired by the host around everything else."""

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
    """IDs 1, 2 and 3, as on every DTrace."""

    name = "dtrace"

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """See :class:`probekit.providers.api.Provider`."""
        return (probe for probe in _PROBES if description.matches(probe.name))

    def by_id(self, probe_id: int) -> Probe | None:
        """See :class:`probekit.providers.api.Provider`."""
        return next((probe for probe in _PROBES if probe.id == probe_id), None)
