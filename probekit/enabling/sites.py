"""From probes to places in live text: each site with its old bytes, each refusal with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from probekit.enabling.ecb import Ecb
from probekit.patch.sites import EntrySite, ExitSite, FunctionExits, Refusal, TextFacts, entry_site, exit_sites
from probekit.providers.api import Function, Probe

__all__ = ("EnabledSite", "RefusedProbe", "SiteSet", "TextReader", "find_sites")

TextReader = Callable[[Sequence[tuple[int, int]]], list[bytes | None]]
"""Live text: ``(addr, size)`` ranges to bytes, None where unreadable."""


@dataclass(frozen=True, slots=True)
class EnabledSite:
    """One place to patch. ``index``: its number in this enabling; ``offset``: from the function's start."""

    index: int
    probe: Probe
    site: EntrySite | ExitSite
    clauses: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class RefusedProbe:
    """A probe, or one exit of it, that cannot be enabled. ``partial``: other exits of it are."""

    probe: Probe
    addr: int
    reason: str
    partial: bool


@dataclass(frozen=True, slots=True)
class SiteSet:
    """All sites of an enabling by index, and what was refused."""

    sites: tuple[EnabledSite, ...]
    refused: tuple[RefusedProbe, ...]


def find_sites(ecbs: Sequence[Ecb], read: TextReader, facts: TextFacts) -> SiteSet:
    """Analyse the functions of all entry and return probes in ``ecbs``."""
    functions = {e.probe.function.addr: e.probe.function for e in ecbs if e.probe.function is not None}
    code = _read_code(tuple(functions.values()), read)
    sites: list[EnabledSite] = []
    refused: list[RefusedProbe] = []
    for ecb in ecbs:
        function = ecb.probe.function
        if function is None:
            continue
        found, problems = _probe_sites(ecb.probe, function, code, facts)
        for site in found:
            sites.append(EnabledSite(len(sites), ecb.probe, site, ecb.clauses, site.addr - function.addr))
        refused += [RefusedProbe(ecb.probe, addr, reason, bool(found)) for addr, reason in problems]
    return SiteSet(tuple(sites), tuple(refused))


def _read_code(functions: Sequence[Function], read: TextReader) -> dict[int, bytes]:
    """The live bytes of every function and of its cold parts, by address."""
    ranges = [(f.addr, f.size) for f in functions]
    ranges += [(start, end - start) for f in functions for start, end in f.cold]
    return {addr: code for (addr, _), code in zip(ranges, read(ranges), strict=True) if code is not None}


def _probe_sites(
    probe: Probe, function: Function, code: dict[int, bytes], facts: TextFacts
) -> tuple[tuple[EntrySite | ExitSite, ...], tuple[tuple[int, str], ...]]:
    """The sites of one probe and the reasons for what it misses."""
    text = code.get(function.addr)
    if text is None:
        return (), ((function.addr, "its code is not mapped"),)
    entry = entry_site(function.addr, text, facts)
    if isinstance(entry, Refusal):
        # No pad means that the kernel keeps tracers out (notrace), so its exits are left alone as well.
        return (), ((function.addr, entry.reason),)
    if probe.kind == "entry":
        return (entry,), ()
    exits = _exits(function, text, code, facts)
    if exits.never_returns:
        return (), ((function.addr, "it never returns"),)
    return exits.sites, exits.unprobeable


def _exits(function: Function, text: bytes, code: dict[int, bytes], facts: TextFacts) -> FunctionExits:
    def cold_at(target: int) -> tuple[int, bytes] | None:
        for start, end in function.cold:
            if start <= target < end and start in code:
                return start, code[start]
        return None

    return exit_sites(function.addr, text, facts, cold_at=cold_at if function.cold else None)
