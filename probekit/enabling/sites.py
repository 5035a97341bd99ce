"""Find the places in live text for each probe: sites with their old bytes, and refusals with their reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from probekit.enabling.ecb import Ecb
from probekit.enabling.syscall_returns import SystemCalls, final_exits, load_jump_targets
from probekit.interruption import until_interrupted
from probekit.isa.decode import ENDBR64
from probekit.kernel.markers import CALL_OFFSET, STATE_OFFSET
from probekit.kernel.syscalls import is_compat
from probekit.patch.crossmodify import journal_batches
from probekit.patch.edits import Edit
from probekit.patch.find_exits import exit_sites
from probekit.patch.hooks import Hook, MarkerHook, TracepointHook, marker_edits
from probekit.patch.insn_sites import FunctionInsns, instruction_sites
from probekit.patch.journal_records import edits_size
from probekit.patch.jump_windows import as_trap, jump_window
from probekit.patch.ranges import any_inside
from probekit.patch.sites import NO_PAD, FunctionExits, InsnSite, Site, SiteRefusal, TextFacts, entry_site
from probekit.providers.api import CALL_KINDS, ENTRY_KINDS, Function, Probe

__all__ = ("EnabledSite", "RefusedProbe", "SiteSet", "TextReader", "find_sites", "journal_size")

TextReader = Callable[[Sequence[tuple[int, int]]], list[bytes | None]]
"""Reads live text: ``(addr, size)`` ranges to bytes, None where unreadable."""


class EnabledSite(NamedTuple):
    """One place in text to patch, or one tracepoint or marker that will call us."""

    number: int
    """Its index in this enabling."""
    probe: Probe
    site: Site | Hook
    clauses: tuple[int, ...]
    """Numbers of the clauses, in program order."""
    offset: int
    """Bytes from the start of the probe's function; 0 when the site is in another function."""
    call: int | None = None
    """The system call's number, where it returns in another function; None for all other sites."""
    compat: bool = False
    """Whether its function serves system calls of 32-bit programs, whose arguments are in other registers."""


class RefusedProbe(NamedTuple):
    """A probe, or one exit of it, that cannot be enabled."""

    probe: Probe
    addr: int
    reason: str
    partial: bool
    """Whether other exits of the same probe are enabled."""


@dataclass(frozen=True, slots=True)
class SiteSet:
    """All sites of an enabling, and the probes that were refused."""

    sites: tuple[EnabledSite, ...]
    """In order of their numbers."""
    refused: tuple[RefusedProbe, ...]


def _no_calls() -> SystemCalls:
    return SystemCalls({}, lambda _: None)


_REGISTRATION = 80  # bytes of a registration's record in the journal: three 64-bit numbers in decimal, and its kind


def journal_size(sites: Sequence[EnabledSite], staged: frozenset[int] = frozenset()) -> int:
    """Return an upper bound of the bytes of the journal's records for making ``sites`` live.

    ``staged``: addresses of the sites that are changed in stages.
    """
    windows = [site.site for site in sites if not isinstance(site.site, Hook)]
    registrations = len(sites) - len(windows)  # tracepoints, and at most one module for each marker
    markers = marker_edits([(s.site, 0) for s in sites if isinstance(s.site, MarkerHook)])
    in_stages = [Edit(w.addr, w.old, w.old) for w in windows if w.addr in staged] if staged else []
    batches = (*journal_batches(in_stages), *journal_batches(markers.loads), markers.pointers, markers.switches)
    at_once = [window.old for window in windows if window.addr not in staged]
    return edits_size(at_once) + sum(edits_size([e.old for e in b]) for b in batches) + _REGISTRATION * registrations


def find_sites(
    ecbs: Sequence[Ecb], read: TextReader, facts: TextFacts, calls: Callable[[], SystemCalls] = _no_calls
) -> SiteSet:
    """Find the sites of all guest probes in ``ecbs``, by analysing their functions.

    ``calls``: returns the kernel's system calls; called only when a probe of a system call needs them.
    """
    code = _read_code(tuple({f.addr: f for e in ecbs for f in e.probe.functions}.values()), read)
    sites: list[EnabledSite] = []
    refused: list[RefusedProbe] = []
    wanted: dict[int, set[int]] = {}
    for ecb in ecbs:
        if ecb.probe.kind == "instruction" and ecb.probe.function is not None:
            wanted.setdefault(ecb.probe.function.addr, set()).add(ecb.probe.offset)
    insns = _Instructions(code, facts, wanted)
    returns = _CallReturns([e.probe for e in ecbs if e.probe.kind in CALL_KINDS], calls, code, read, facts)
    for probe, clauses in until_interrupted(ecbs):
        function, kind = probe.function, probe.kind
        if function is None:
            called = _called(probe, facts)
            if isinstance(called, str):
                refused.append(RefusedProbe(probe, probe.marker.addr if probe.marker else 0, called, False))
            elif called is not None:
                sites.append(EnabledSite(len(sites), probe, called, clauses, 0))
            continue
        if kind in CALL_KINDS:
            _find_call_sites(
                probe, clauses, returns, lambda p, f: _probe_sites(p, f, code, facts, insns), sites, refused
            )
            continue
        found, problems = (
            insns.at(function, probe.offset)
            if kind == "instruction"
            else _probe_sites(probe, function, code, facts, insns)
        )
        for site in found:
            sites.append(EnabledSite(len(sites), probe, site, clauses, site.addr - function.addr))
        for addr, reason in problems:
            refused.append(RefusedProbe(probe, addr, reason, bool(found)))
    return SiteSet(tuple(_separated(sites)), tuple(refused))


def _find_call_sites(
    probe: Probe,
    clauses: tuple[int, ...],
    returns: _CallReturns,
    entries: Callable[[Probe, Function], _Found],
    sites: list[EnabledSite],
    refused: list[RefusedProbe],
) -> None:
    """Add the sites and refusals of a probe of a system call, in each of its functions that some program calls.

    ``entries``: finds the sites at one function's entry.
    """
    before = len(sites)
    missed: list[tuple[int, str]] = []
    functions = returns.called(probe)
    for function in functions:
        found, problems = returns.of(function) if probe.kind == "sysret" else entries(probe, function)
        missed += problems
        compat = is_compat(function.name)
        for site in found:
            for call in returns.numbers(function, site) if probe.kind == "sysret" else (None,):
                offset = site.addr - function.addr if call is None else 0
                sites.append(EnabledSite(len(sites), probe, site, clauses, offset, call, compat))
    if not functions:
        missed = [(f.addr, "no number of a system call leads to it") for f in probe.functions]
    refused += [RefusedProbe(probe, addr, reason, len(sites) > before) for addr, reason in missed]


def _separated(sites: list[EnabledSite]) -> list[EnabledSite]:
    """Replace every jump over several instructions by a trap where it would cover another site's bytes."""
    if not any(isinstance(s.site, InsnSite) and s.site.first_size for s in sites):
        return sites
    starts = sorted({s.site.addr for s in sites})
    return [
        s._replace(site=as_trap(s.site))
        if isinstance(s.site, InsnSite) and any_inside(starts, s.site.addr, s.site.addr + len(s.site.old))
        else s
        for s in sites
    ]


def _called(probe: Probe, facts: TextFacts) -> Hook | str | None:
    """Return where our function is called from, for a tracepoint or marker, or why it cannot be called."""
    if probe.tracepoint is not None:
        return TracepointHook(probe.tracepoint.addr, probe.tracepoint.owner)
    marker = probe.marker
    if marker is None or marker.refusal:
        return marker.refusal if marker is not None else None
    for addr, _ in marker.loads:
        why = facts.refused.reason(addr)
        if why is not None:
            return f"{why}; its generic form could be used"
    state = marker.addr + STATE_OFFSET if marker.generic else 0
    return MarkerHook(marker.addr, marker.owner, (marker.addr + CALL_OFFSET, marker.call), state, marker.loads)


def _read_code(functions: Sequence[Function], read: TextReader) -> dict[int, bytes]:
    """Read the live bytes of every function and of its cold parts, by address."""
    ranges = [(f.addr, f.size) for f in functions]
    ranges += [(start, end - start) for f in functions for start, end in f.cold]
    return {addr: code for (addr, _), code in zip(ranges, read(ranges), strict=True) if code is not None}


_Found = tuple[tuple[Site, ...], tuple[tuple[int, str], ...]]
"""The sites of one probe, and ``(address, reason)`` for each place that cannot be patched."""


class _Instructions:
    """Finds the instruction sites of functions, and analyses each function once."""

    def __init__(self, code: dict[int, bytes], facts: TextFacts, wanted: dict[int, set[int]]) -> None:
        self._code = code
        self._facts = facts
        self._wanted = wanted
        self._known: dict[int, FunctionInsns] = {}

    def at(self, function: Function, offset: int) -> _Found:
        """Return the site of one instruction."""
        text = self._code.get(function.addr)
        if text is None:
            return (), ((function.addr, _UNMAPPED),)
        found = self._function(function, text)
        site = found.sites.get(offset)
        if site is None:
            return (), ((function.addr + offset, found.why_not(offset)),)
        window = jump_window(found, offset, self._facts) if site.trap else site
        return (window if isinstance(window, InsnSite) else site,), ()

    def _function(self, function: Function, text: bytes) -> FunctionInsns:
        if function.addr not in self._known:
            wanted = self._wanted.get(function.addr) if self._facts.side_entries is None else None
            cold = [(start, self._code[start]) for start, _ in function.cold if start in self._code]
            self._known[function.addr] = instruction_sites(function.addr, text, self._facts, cold, wanted=wanted)
        return self._known[function.addr]


class _CallReturns:
    """Finds where system calls return, and analyses each function once. ``probes``: those of system calls."""

    def __init__(
        self,
        probes: Sequence[Probe],
        calls: Callable[[], SystemCalls],
        code: dict[int, bytes],
        read: TextReader,
        facts: TextFacts,
    ) -> None:
        self._code = code
        self._read = read
        self._facts = facts
        self._known: dict[int, FunctionExits | str] = {}
        if probes:
            self._calls = calls()
            functions = [f for probe in probes if probe.kind == "sysret" for f in self.called(probe)]
            load_jump_targets(functions, self._calls, self._learn, self._exits)

    def called(self, probe: Probe) -> list[Function]:
        """Return those of a system call's functions that a program may call."""
        return [function for function in probe.functions if not self._calls.never_called(function)]

    def of(self, function: Function) -> _Found:
        """Return the sites where the system call with this function returns."""
        return final_exits(function, self._calls, self._exits)

    def numbers(self, function: Function, site: Site) -> tuple[int | None, ...]:
        """Return the numbers of system calls that a firing at ``site`` must be in; None where every firing counts."""
        return self._calls.numbers[function.addr] if site.func_addr != function.addr else (None,)

    def _learn(self, functions: Sequence[Function]) -> None:
        self._code.update(_read_code(functions, self._read))

    def _exits(self, function: Function) -> FunctionExits | str:
        if function.addr not in self._known:
            self._known[function.addr] = self._analysed(function)
        return self._known[function.addr]

    def _analysed(self, function: Function) -> FunctionExits | str:
        text = self._code.get(function.addr)
        if text is None:
            return _UNMAPPED
        # A missing pad is no reason to refuse here: the compiler leaves it out of the functions that SYSCALL_DEFINE
        # makes, because they are declared inline. The kernel's own lists name what must not be traced.
        refused = self._facts.refused.reason(function.addr)
        if refused is not None:
            return refused
        found = _exits(function, text, self._code, self._facts)
        return _NEVER if found.never_returns else found


_UNMAPPED = "its code is not mapped"
_NEVER = "it never returns"


def _probe_sites(
    probe: Probe, function: Function, code: dict[int, bytes], facts: TextFacts, insns: _Instructions
) -> _Found:
    """Return the sites of an entry or return probe."""
    text = code.get(function.addr)
    if text is None:
        return (), ((function.addr, _UNMAPPED),)
    entry = entry_site(function.addr, text, facts)
    if isinstance(entry, SiteRefusal) and entry.reason == NO_PAD and facts.pads is None:
        # A kernel without ftrace has no pads at all: the first instruction is probed like any other.
        if probe.kind in ENTRY_KINDS or facts.refused.reason(function.addr) is not None:
            return insns.at(function, 4 if text.startswith(ENDBR64) else 0)
    elif isinstance(entry, SiteRefusal):
        # No pad means that the kernel keeps tracers out (notrace), so its exits are left alone as well.
        return (), ((function.addr, entry.reason),)
    elif probe.kind in ENTRY_KINDS:
        return (entry,), ()
    exits = _exits(function, text, code, facts)
    if exits.never_returns:
        return (), ((function.addr, _NEVER),)
    return exits.sites, exits.unprobeable


def _exits(function: Function, text: bytes, code: dict[int, bytes], facts: TextFacts) -> FunctionExits:
    def cold_at(target: int) -> tuple[int, bytes] | None:
        for start, end in function.cold:
            if start <= target < end and start in code:
                return start, code[start]
        return None

    return exit_sites(function.addr, text, facts, cold_at=cold_at if function.cold else None)
