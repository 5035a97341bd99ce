"""Finds the sites of a program's probes in the guest, and the memory that it watches."""

from __future__ import annotations

from dataclasses import replace

from probekit.consumer import events as model
from probekit.enabling.ecb import Matching
from probekit.enabling.sites import SiteSet, find_sites
from probekit.enabling.stop_engine.watch import WatchSite
from probekit.patch.sites import TextFacts
from probekit.records import record
from probekit.session.attach import Attachment

__all__ = ("GuestSites", "find_guest_sites")


@record
class GuestSites:
    """What is probed in the guest."""

    found: SiteSet = SiteSet((), ())
    """Sites in its text, and probes without one."""
    watches: tuple[WatchSite, ...] = ()
    """Memory that is watched. The numbers follow those of the sites."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.found.sites) + len(self.watches)

    @property
    def probes(self) -> dict[int, model.ProbeIdentity]:
        """The probe of each site number."""
        probes = {s.number: s.probe for s in self.found.sites} | {w.number: w.probe for w in self.watches}
        return {number: model.ProbeIdentity(probe.id, probe.name) for number, probe in probes.items()}


def find_guest_sites(
    attachment: Attachment, matching: Matching, *, kinstjump: bool, steps_in_place: bool
) -> GuestSites:
    """Find the sites of all guest probes.

    ``kinstjump``: the option. ``steps_in_place``: whether the engine can step an instruction where it stands.
    """
    ecbs = [ecb for ecb in matching.in_guest() if ecb.probe.watched is None]
    found = SiteSet((), ())
    if ecbs:
        attachment.progress(f"finding the sites of {len(ecbs)} probes")
        text = any(ecb.probe.function is not None for ecb in ecbs)
        facts = attachment.text_facts if text else TextFacts()
        if steps_in_place:
            facts = replace(facts, trapping=True, fixups=True)
        if kinstjump or (text and facts.pads is None):
            facts = replace(facts, side_entries=attachment.side_entries)
        found = find_sites(ecbs, attachment.read_code, facts, attachment.system_calls)
    watched = [(e.probe, e.probe.watched, e.clauses) for e in matching.ecbs if e.probe.watched is not None]
    return GuestSites(found, tuple(WatchSite(len(found.sites) + n, *watch) for n, watch in enumerate(watched)))
