"""All providers of one session, asked as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probekit.probe.names import ProbeDescription
from probekit.providers.api import Function, Probe, Provider
from probekit.providers.dtrace import DtraceProvider
from probekit.providers.profile import ProfileProvider

__all__ = ("Registry", "make_registry")

_FIRST_FBT_ID = 4


class Registry:
    """Matches descriptions against every provider."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = tuple(providers)

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Every probe that a description names, in ID order within a provider."""
        if description.probe_id is not None:
            probe = self.by_id(description.probe_id)
            if probe is not None:
                yield probe
            return
        for provider in self._providers:
            yield from provider.match(description)

    def by_id(self, probe_id: int) -> Probe | None:
        """The probe with this ID, or None."""
        return next((p for provider in self._providers if (p := provider.by_id(probe_id)) is not None), None)


def make_registry(table: tuple[Function, ...]) -> Registry:
    """The registry of a session. ``table``: the guest kernel's functions (empty with no guest)."""
    if not table:
        return Registry((DtraceProvider(), ProfileProvider(_FIRST_FBT_ID)))
    from probekit.providers.fbt import FbtProvider

    fbt = FbtProvider(table, _FIRST_FBT_ID)
    return Registry((DtraceProvider(), fbt, ProfileProvider(fbt.end_id)))
