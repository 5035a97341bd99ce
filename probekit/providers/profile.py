"""Provider ``profile``: ``tick-N[unit]`` and ``profile-N[unit]``, fired by the host's own clock.

Probes exist once a description names them, as on DTrace; a glob only lists
those that exist already. Units: ns us ms s m h d hz and their long forms;
without one N is a frequency, as in D. ``profile-N`` fires on every CPU of the
machine that it belongs to: the host has one for us.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from probekit.probe.names import ProbeDescription, ProbeName, is_glob
from probekit.providers.api import Probe

__all__ = ("ProfileProvider", "period_ns")

_UNITS = {
    **dict.fromkeys(("ns", "nsec"), 1),
    **dict.fromkeys(("us", "usec"), 1_000),
    **dict.fromkeys(("ms", "msec"), 1_000_000),
    **dict.fromkeys(("s", "sec"), 1_000_000_000),
    **dict.fromkeys(("m", "min"), 60_000_000_000),
    **dict.fromkeys(("h", "hour"), 3_600_000_000_000),
    **dict.fromkeys(("d", "day"), 86_400_000_000_000),
}
_TIMED = re.compile(r"(?:tick|profile)-(\d{1,18})([a-z]*)")
_SHORTEST_NS = 200_000  # DTrace's own limit


def period_ns(name: str) -> int | None:
    """The period of ``tick-N[unit]`` or ``profile-N[unit]`` in nanoseconds; None for anything else."""
    match = _TIMED.fullmatch(name)
    if match is None or (count := int(match[1])) == 0:
        return None
    if match[2] in ("", "hz"):
        period = 1_000_000_000 // count
    elif match[2] in _UNITS:
        period = count * _UNITS[match[2]]
    else:
        return None
    return period if period >= _SHORTEST_NS else None


class ProfileProvider:
    """Timed probes. ``first_id``: IDs from here on belong to them."""

    name = "profile"

    def __init__(self, first_id: int) -> None:
        self._first_id = first_id
        self._probes: list[Probe] = []

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """See :class:`probekit.providers.api.Provider`; a plain ``tick-N`` name makes the probe."""
        period = None if is_glob(description.name) else period_ns(description.name)
        if period is not None and all(p.name.name != description.name for p in self._probes):
            name = ProbeName(self.name, "", "", description.name)
            probe = Probe(self._first_id + len(self._probes), name, "tick", period_ns=period)
            if description.matches(name):
                self._probes.append(probe)
        return (probe for probe in list(self._probes) if description.matches(probe.name))

    def by_id(self, probe_id: int) -> Probe | None:
        """See :class:`probekit.providers.api.Provider`."""
        return next((probe for probe in self._probes if probe.id == probe_id), None)
