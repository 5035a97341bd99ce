"""Lists the probes that match, or all probes, for ``-l``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probekit.cli.prototypes import argument_types
from probekit.consumer import events as model
from probekit.enabling.ecb import Ecb, match_program
from probekit.errors import ProbekitError
from probekit.interruption import until_interrupted
from probekit.ir.ops import Program
from probekit.output.probe_list import STABILITY, ListedProbe, Refused, listing_json, listing_text
from probekit.output.streams import TextStream
from probekit.probe.names import ProbeDescription
from probekit.providers.registry import make_registry

if TYPE_CHECKING:
    from probekit.enabling.sites import EnabledSite, SiteSet
    from probekit.session.attach import Attachment

__all__ = ("list_probes",)


def list_probes(
    guest: Attachment | None, program: Program | None, out: TextStream, *, verbose: bool, json: bool
) -> None:
    """Write the table of probes. Refused probes are left out; with ``verbose`` they are listed with the reason.

    ``program``: None for all probes. Raises :class:`ProbekitError` when nothing matches.
    """
    registry = guest.registry if guest is not None else make_registry(None)
    if program is None:
        ecbs = tuple(Ecb(probe, ()) for probe in until_interrupted(registry.match(ProbeDescription())))
    else:
        matching = match_program(program, registry)
        ecbs = matching.ecbs
        if matching.unmatched and not ecbs:
            raise ProbekitError(f"failed to match {matching.unmatched[0][1]}: No probe matches description")
    sites = _sites(ecbs, guest) if guest is not None else None
    gone = {r.probe.id: r for r in sites.refused if not r.partial} if sites is not None else {}
    notes: dict[int, list[str]] = {}
    if verbose and sites is not None:
        for site in sites.sites:
            notes.setdefault(site.probe.id, []).append(_how(site))
        for refused in sites.refused:
            if refused.partial:
                notes.setdefault(refused.probe.id, []).append(f"not seen: exit at {refused.addr:#x}: {refused.reason}")
    types = argument_types(guest)
    listed = [
        ListedProbe(
            model.ProbeIdentity(e.probe.id, e.probe.name),
            arguments=types(e.probe) if verbose or json else None,
            stability=STABILITY.get(e.probe.name.provider, STABILITY[""]),
            notes=tuple(notes.get(e.probe.id, ())),
        )
        for e in until_interrupted(ecbs)
        if e.probe.id not in gone
    ]
    left_out = [Refused(r.probe.name, r.reason) for r in gone.values()] if verbose else []
    lines = listing_json(listed, left_out) if json else listing_text(listed, left_out, verbose=verbose)
    for line in until_interrupted(lines):
        out.write(line if json else line + "\n")


def _how(site: EnabledSite) -> str:
    """Describe a site's place, and how it is patched: a trap takes much longer than a jump."""
    from probekit.patch.hooks import Hook
    from probekit.patch.sites import needs_trap

    if isinstance(site.site, Hook):
        return f"{site.probe.kind} {site.site.addr:#x}"
    form = "int3: a trap for each firing" if needs_trap(site.site) else "jump"
    return f"site {site.site.addr:#x} (+{site.offset:#x}), {form}"


def _sites(ecbs: tuple[Ecb, ...], guest: Attachment) -> SiteSet:
    from probekit.enabling.sites import find_sites

    return find_sites(ecbs, guest.read_code, guest.text_facts, guest.system_calls)
