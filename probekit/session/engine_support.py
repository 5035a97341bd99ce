"""Refuses a program that uses something its engine does not have, before the guest is changed.

The message names the action, subroutine or variable. Nothing is approximated.
"""

from __future__ import annotations

from probekit.buffers import actions as acts
from probekit.codegen.supported import unsupported_features
from probekit.enabling.ecb import Matching
from probekit.enabling.host.vcpu import STOPPED_FACTS
from probekit.errors import UnsupportedError
from probekit.ir.names import BUILTINS
from probekit.ir.ops import CallSubroutine, Clause, LoadBuiltin, Program
from probekit.providers.profile import is_sampling
from probekit.session.options import EngineName

__all__ = ("refuse_for_guest", "wants_stacks")

_COMMON = (acts.TraceAction, acts.Printf, acts.Exit, acts.Default, acts.Printa, acts.Clear, acts.Trunc)
_ON_HOST = (acts.Normalize, acts.Denormalize, acts.Setopt, acts.System, acts.Freopen, acts.Ftruncate, acts.SymbolAction)
_RECORDED = (acts.Print, acts.Stack, acts.Tracemem)
_READ = (*_COMMON, *_ON_HOST, *_RECORDED)
"""Actions that only need a record where the clause runs. Both engines have them."""

_CODE = (acts.Speculate, acts.Commit, acts.Discard, acts.Chill, acts.Panic, acts.Raise, acts.Stop)
"""Actions that only code in the guest can carry out: the stop engine does not have them."""

_ONLY_IN_GUEST = frozenset(
    (
        *("copyin", "copyinstr", "copyinto", "d_path", "jstack", "pcap"),
        *("mutex_owned", "mutex_owner", "mutex_type_adaptive", "mutex_type_spin"),
        *("rw_iswriter", "rw_read_held", "rw_write_held", "speculation", "ustack"),
    )
)
"""Subroutines that only code in the guest can carry out."""

_ON_HOST_TOO = ("speculation",)
"""Of these, the ones that the host can carry out for its own probes."""

_NEVER = {"breakpoint": "the stub has one client, and that is probekit: no debugger would come"}
"""Why an action is refused at all probes of a guest, by its name."""

_NOT_STOPPED = {
    **dict.fromkeys(
        ("copyout", "copyoutstr"), "only its own kernel can tell whether a program's memory may be written"
    ),
    "chill": "it does not notice that time passes: only code in it can wait",
    **dict.fromkeys(("panic", "raise", "stop"), "only code in it can call its kernel"),
}
"""Why an action is refused at probes for which the guest is stopped, by its name. "It" is the stopped guest."""


def refuse_for_guest(program: Program, matching: Matching, engine: EngineName) -> None:
    """Raise :class:`UnsupportedError` when a clause of a guest probe uses something that ``engine`` does not have."""
    called = next((ecb.probe.kind for ecb in matching.ecbs if ecb.probe.kind in ("tracepoint", "marker")), None)
    if engine == "stop" and called is not None:
        raise UnsupportedError(
            f"a {called} calls code in the guest, and the stop engine has none",
            feature=called,
            hint="use --engine guest",
        )
    for number in {number for ecb in matching.ecbs if is_sampling(ecb.probe) for number in ecb.clauses}:
        clause = program.clauses[number]
        _refuse_actions(clause, "stop")
        for feature in _only_in_guest(clause, allowed=_ON_HOST_TOO):
            message = (
                f"line {clause.line}: {feature} is not available in a profile probe: the guest is stopped while it runs"
            )
            raise UnsupportedError(message, feature=feature, hint="use a probe that fires in the guest")
    used = {number for ecb in matching.in_guest() for number in ecb.clauses}
    for number in sorted(used):
        clause = program.clauses[number]
        _refuse_actions(clause, engine)
        for feature in _missing(program, clause, engine):
            message = f"line {clause.line}: {feature} in the guest is not implemented yet"
            other: EngineName = "stop" if engine == "guest" else "guest"
            has = feature not in _missing(program, clause, other)
            raise UnsupportedError(message, feature=feature, hint=f"--engine {other} has it" if has else "")


def _refuse_actions(clause: Clause, engine: EngineName) -> None:
    """Refuse actions that this engine can never support."""
    names = [acts.action_name(action) for action in (clause.record.actions if clause.record is not None else ())]
    names += [op.name for block in clause.blocks for op in block.ops if isinstance(op, CallSubroutine)]
    for name in names:
        if name in _NEVER:
            raise UnsupportedError(f"line {clause.line}: no {name}() in a guest: {_NEVER[name]}", feature=name)
        if engine == "stop" and name in _NOT_STOPPED:
            raise UnsupportedError(
                f"line {clause.line}: no {name}() in a guest that is stopped: {_NOT_STOPPED[name]}",
                feature=name,
                hint="use --engine guest, and a probe that fires in the guest",
            )


def wants_stacks(program: Program, matching: Matching, engine: EngineName) -> bool:
    """Return whether a clause that runs on the host for a stopped vCPU uses ``stack()`` or ``stackdepth``."""
    ecbs = [e for e in matching.ecbs if is_sampling(e.probe) or (engine == "stop" and e.probe.in_guest)]
    clauses = [program.clauses[number] for number in {n for ecb in ecbs for n in ecb.clauses}]
    ops = (op for clause in clauses for block in clause.blocks for op in block.ops)
    return any(isinstance(op, CallSubroutine | LoadBuiltin) and op.name in ("stack", "stackdepth") for op in ops)


def _missing(program: Program, clause: Clause, engine: EngineName) -> list[str]:
    """Return the names of everything that a clause uses and ``engine`` does not have."""
    found: list[str] = unsupported_features(clause) if engine == "guest" else []
    for action in clause.record.actions if clause.record is not None else ():
        if not isinstance(action, _READ) and not (engine == "guest" and isinstance(action, _CODE)):
            found.append(f"{acts.action_name(action)}()")
        elif isinstance(action, acts.Clear | acts.Trunc) and program.aggregations[action.agg].func in ("min", "max"):
            found.append(f"{acts.action_name(action)}() of a min() or max()")
    if engine == "stop":
        found += _only_in_guest(clause)
    return found


def _only_in_guest(clause: Clause, allowed: tuple[str, ...] = ()) -> list[str]:
    """Return the names of all variables and subroutines in a clause that only code in the guest can serve.

    ``allowed``: subroutines that are not counted.
    """
    names = (op.name for block in clause.blocks for op in block.ops if isinstance(op, LoadBuiltin))
    facts = [n for n in names if not BUILTINS[n].per_probe and n != "epid" and n not in STOPPED_FACTS]
    calls = (op.name for block in clause.blocks for op in block.ops if isinstance(op, CallSubroutine))
    unserved = [f"the subroutine {name}()" for name in calls if name in _ONLY_IN_GUEST and name not in allowed]
    return [f"the built-in variable {name}" for name in facts] + unserved
