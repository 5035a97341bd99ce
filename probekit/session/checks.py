"""Refuses a program that cannot run here, before the guest is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from probekit.buffers.layout import RECORD_HEADER
from probekit.enabling.ecb import Matching
from probekit.errors import ProbekitError
from probekit.ir.ops import Program
from probekit.probe.names import ProbeDescription, has_wildcard
from probekit.session.options import Options

if TYPE_CHECKING:
    from probekit.enabling.sites import RefusedProbe
    from probekit.providers.registry import Registry

__all__ = (
    "NoMatchError",
    "check_matches",
    "check_records",
    "check_refused",
    "refuse_destructive",
)


class NoMatchError(ProbekitError):
    """A probe description matches no probe, or only probes that cannot be enabled."""

    def __init__(self, message: str, *, clause: int, description: str, tag: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.tag = tag
        """D's name for the error, such as ``D_PDESC_ZERO``."""
        self.clause = clause
        """The number of the clause that has the description."""
        self.description = description
        """The description, as the program has it."""


def check_matches(matching: Matching, options: Options) -> None:
    """Raise :class:`NoMatchError` for a description without a probe, unless ``zdefs`` allows it."""
    for clause, description in matching.unmatched:
        if description.probe_id is not None or not options.zdefs:
            raise _no_match(clause, description)


def _no_match(clause: int, description: ProbeDescription) -> NoMatchError:
    hint = "list the probes with -l"
    if description.probe_id is not None:
        message, tag = f"there is no probe {description}", "D_PDESC_INVAL"
    else:
        message, tag = f"probe description {description} does not match any probes", "D_PDESC_ZERO"
        hint += ", or allow it with -Z"
    return NoMatchError(message, clause=clause, description=str(description), tag=tag, hint=hint)


def check_refused(program: Program, registry: Registry, refused: Sequence[RefusedProbe], options: Options) -> str:
    """Raise :class:`NoMatchError` for a description without wildcards whose probes cannot be enabled, not one of them.

    With ``zdefs``, return a message about all such descriptions instead; empty when there are none.
    """
    reasons = {r.probe.id: r.reason for r in refused if not r.partial}
    found = list(_all_refused(program, registry, reasons)) if reasons else []
    if not found:
        return ""
    clause, description, reason = found[0]
    message = f"probe description {description} does not match any probes that are available: {reason}"
    if not options.zdefs:
        hint = "-l -v lists probes that are not available, or allow it with -Z"
        raise NoMatchError(message, clause=clause, description=str(description), tag="D_PDESC_ZERO", hint=hint)
    return message + (f" (and {len(found) - 1} more: -l -v says why)" if len(found) > 1 else "")


def _all_refused(
    program: Program, registry: Registry, reasons: dict[int, str]
) -> Iterator[tuple[int, ProbeDescription, str]]:
    """Yield clause, description and reason of each description without wildcards that has only refused probes."""
    for clause in program.clauses:
        for description in clause.probes:
            if has_wildcard(description):
                continue
            reason = ""
            for probe in registry.match(description):
                if probe.id not in reasons:
                    break
                reason = reason or reasons[probe.id]
            else:
                if reason:
                    yield clause.index, description, reason


def check_records(program: Program, options: Options) -> None:
    """Raise :class:`ProbekitError` for a record that can never fit into the buffer, as DTrace does at the start."""
    sizes = [RECORD_HEADER.size + clause.record.size for clause in program.clauses if clause.record is not None]
    if max(sizes, default=0) > options.bufsize:
        message = "could not enable tracing: Enabling exceeds size of buffer"
        raise ProbekitError(message, hint=f"a record takes {max(sizes)} bytes: set bufsize")


def refuse_destructive(program: Program, options: Options) -> None:
    """Raise :class:`ProbekitError` for a destructive action, unless the option ``destructive`` allows it."""
    if program.destructive and not options.destructive:
        raise ProbekitError(
            "could not enable tracing: Destructive actions not allowed",
            hint=f"{program.destructive[0]}() is one; -w allows them",
        )
