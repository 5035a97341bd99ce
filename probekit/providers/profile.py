"""Publish the provider ``profile``: ``tick-N[unit]`` and ``profile-N[unit]``, fired by the host's own clock.

A few exist from the start, as on DTrace, and the others once a description names them.
A glob finds those that exist. Units: ns us ms s m h d hz and their long forms;
without a unit N is a frequency, as in D. ``profile-N`` fires for every CPU of the
guest (:mod:`probekit.session.sampling`); without a guest it fires once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from probekit.probe.names import ProbeDescription, ProbeName, is_glob
from probekit.providers.api import Probe

__all__ = ("ProfileProvider", "is_sampling", "period_ns")

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
_STANDARD = (
    *(f"profile-{rate}" for rate in (97, 199, 499, 997, 1999, 4001, 4999)),
    *(f"tick-{rate}" for rate in (1, 10, 100, 500, 1000, 5000)),
)


def period_ns(name: str) -> int | None:
    """Return the period of ``tick-N[unit]`` or ``profile-N[unit]`` in nanoseconds; None for anything else."""
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


def is_sampling(probe: Probe) -> bool:
    """Tell whether this is ``profile-N``, which fires for every CPU."""
    return probe.kind == "tick" and probe.name.name.startswith("profile-")


class ProfileProvider:
    """Publishes timed probes."""

    name = "profile"

    def __init__(self, ids: Iterator[int]) -> None:
        """Publish the standard probes. ``ids``: gives the IDs of probes."""
        self._ids = ids
        self._probes: list[Probe] = []
        for name in _STANDARD:
            self._make(name)

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order.

        A ``tick-N`` or ``profile-N`` without wildcards makes its probe.
        """
        if (
            not is_glob(description.name)
            and all(p.name.name != description.name for p in self._probes)
            and description.matches(ProbeName(self.name, "", "", description.name))
        ):
            self._make(description.name)
        return (probe for probe in list(self._probes) if description.matches(probe.name))

    def _make(self, name: str) -> None:
        period = period_ns(name)
        if period is not None:
            self._probes.append(Probe(next(self._ids), ProbeName(self.name, "", "", name), "tick", period_ns=period))

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        return next((probe for probe in self._probes if probe.id == probe_id), None)
