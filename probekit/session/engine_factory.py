"""Makes the engine that a run asks for, and gives it access to the guest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from probekit.enabling.api import Engine, EngineOptions
from probekit.enabling.guest_engine.engine import GuestEngine
from probekit.enabling.sites import EnabledSite
from probekit.enabling.stop_engine.engine import StopEngine
from probekit.enabling.stop_engine.watch import Watcher, WatchSite
from probekit.errors import UnsupportedError
from probekit.ir.ops import Program
from probekit.patch.refused_text import NO_REFUSED
from probekit.patch.sites import EntrySite, ExitSite, needs_trap
from probekit.records import record
from probekit.session.attach import Attachment
from probekit.session.journal_log import JournalLog
from probekit.session.options import EngineName, Options
from probekit.target.rsp import RspTarget

__all__ = ("ENGINES", "EngineKind", "EnginePlan", "make_engine", "staged_sites")


_MIN_BUFFER = 4096  # bytes of the smallest buffer that an engine can work with
_MAX_BUFFER = 1 << 28


@record
class EngineKind:
    """What an engine can do: a run must know it before the engine is made."""

    steps_in_place: bool
    """Whether it can step an instruction that may fault, or trap, in its place: then that instruction can be a site."""

    patches_in_stages: bool
    """Whether it patches the guest's text, and can do so in stages while the guest runs."""

    measures: bool
    """Whether its clauses can measure how long they take."""


ENGINES: Mapping[EngineName, EngineKind] = {
    "guest": EngineKind(steps_in_place=False, patches_in_stages=True, measures=True),
    "stop": EngineKind(steps_in_place=True, patches_in_stages=False, measures=False),
}


def _bytes_of_cpu(name: str, size: int) -> int:
    """Return the size of a CPU's buffer, in bytes: at least a page. Raises :class:`UnsupportedError` above 256 MiB."""
    if size > _MAX_BUFFER:
        raise UnsupportedError(
            f"-x {name}={size}: a CPU of the guest can have {_MAX_BUFFER >> 20}m at most", feature=name, hint="lower it"
        )
    return max(size, _MIN_BUFFER)


@record
class EnginePlan:
    """What a run asks of its engine."""

    name: EngineName
    program: Program
    options: Options
    sites: Sequence[EnabledSite]
    watches: Sequence[WatchSite]
    """The ``mem`` probes."""

    staged: frozenset[int]
    """Addresses of the sites that are patched in stages, while the guest runs."""

    measure: bool
    """Whether clauses measure how long they take."""

    edits_size: int
    """Bytes of the journal's records of the edits."""

    cancelled: Callable[[], bool]
    """Returns whether to give up waiting for the guest."""


def make_engine(attachment: Attachment, plan: EnginePlan, log: JournalLog) -> Engine:
    """Make the engine; nothing in the guest changes yet. Raises :class:`UnsupportedError`."""
    make = (
        partial(
            StopEngine,
            safe_loads=attachment.safe_loads,
            stacks=attachment.stacks,
            watcher=_watcher(attachment, plan.watches),
            fixups=_fixups(attachment, plan.sites),
        )
        if plan.name == "stop"
        else partial(
            GuestEngine,
            make_memory=attachment.data_memory,
            page_tables=attachment.process_page_tables(),
            edits_size=plan.edits_size,
        )
    )
    return make(
        target=attachment.target,
        text=attachment.text,
        facts=attachment.facts,
        program=plan.program,
        sites=plan.sites,
        options=_engine_options(plan),
        log=log,
        clock=attachment.clock,
        cancelled=plan.cancelled,
        alive=attachment.life.alive,
    )


def _engine_options(plan: EnginePlan) -> EngineOptions:
    options = plan.options
    return EngineOptions(
        aggsize=_bytes_of_cpu("aggsize", options.aggsize),
        bufsize=_bytes_of_cpu("bufsize", options.bufsize),
        dynvarsize=options.dynvarsize,
        scratchsize=options.scratchsize,
        nspec=options.nspec,
        bufpolicy=options.bufpolicy,
        switchrate_s=options.switchrate_ns / 1e9 if options.switchrate_ns else None,
        safepoint_s=options.safepoint_ns / 1e9,
        measure=plan.measure,
        quiet_s=options.quiesce_ns / 1e9,
        staged=plan.staged,
    )


def _fixups(attachment: Attachment, sites: Sequence[EnabledSite]) -> dict[int, int]:
    """Return the fix-up address of each kernel instruction that may fault. Only instruction probes need it."""
    if all(site.probe.kind != "instruction" for site in sites):
        return {}
    with attachment.clock.paused():
        entries = attachment.kernel.exception_entries()
    return {addr: fixup for addr, (fixup, _) in entries.items()}


def _watcher(attachment: Attachment, watches: Sequence[WatchSite]) -> Watcher | None:
    """Return the watcher of the ``mem`` probes, if there are any."""
    if not watches:
        return None
    if not isinstance(attachment.target, RspTarget):
        raise UnsupportedError(
            "mem probes need a direct connection to the stub",
            feature="mem",
            hint="gdb leaves out writes that change nothing: name the stub itself with -r",
        )
    symbols = attachment.kernel.symbols
    return Watcher(
        attachment.target,
        attachment.text,
        watches,
        landings=attachment.facts.call_points.landings,
        start_of=lambda addr: found[0].addr if (found := symbols.lookup(addr)) is not None else None,
    )


def staged_sites(attachment: Attachment, sites: Sequence[EnabledSite]) -> frozenset[int]:
    """Return the addresses of the sites that can be patched in stages: those where an INT3 may stand meanwhile."""
    jumps = {s.site.addr for s in sites if isinstance(s.site, EntrySite | ExitSite) and not needs_trap(s.site)}
    refused = attachment.text_facts.refused if jumps else NO_REFUSED
    return frozenset(addr for addr in jumps if refused.reason(addr) is None)
