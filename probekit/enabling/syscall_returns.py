"""Where a system call returns when its function ends in a jump to another one.

``__x64_sys_read`` ends in ``jmp ksys_read``: what the call returns is only known where ``ksys_read`` returns. Others
call that function too, so a firing there counts when it returns to the kernel's entry code and the task is in that
system call. Nothing on the stack is changed for it, as a return probe by the return address would have to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from probekit.patch.sites import ExitSite, FunctionExits
from probekit.providers.api import Function, Probe

__all__ = ("ExitFinder", "SystemCalls", "final_exits", "followed")

_DEEPEST = 4  # functions behind one system call, each the end of the one before

ExitFinder = Callable[[Function], FunctionExits | str]
"""The exits of a function, or why it has none that can be probed."""


@dataclass(frozen=True, slots=True)
class SystemCalls:
    """``numbers``: of each system call, by its function's address. ``function_at``: the function that begins there."""

    numbers: Mapping[int, int]
    function_at: Callable[[int], Function | None]


def followed(
    probes: Iterable[Probe], calls: SystemCalls, learn: Callable[[list[Function]], None], exits: ExitFinder
) -> None:
    """Call ``learn`` with every function that :func:`final_exits` will want the exits of, a few times in all."""
    known = {probe.function.addr: probe.function for probe in probes if probe.function is not None}
    frontier = list(known.values())
    for _ in range(_DEEPEST):
        found = {target.addr: target for function in frontier for target in _targets(exits(function), calls)}
        frontier = [function for addr, function in found.items() if addr not in known]
        if not frontier:
            return
        learn(frontier)
        known |= {function.addr: function for function in frontier}


def _targets(found: FunctionExits | str, calls: SystemCalls) -> list[Function]:
    if isinstance(found, str):
        return []
    targets = (calls.function_at(site.target) for site in found.sites if site.target is not None and not _holds(site))
    return [target for target in targets if target is not None]


def _holds(site: ExitSite) -> bool:
    """What the function returns is in rax there."""
    return site.kind in ("ret", "return_thunk")


def final_exits(
    function: Function, calls: SystemCalls, exits: ExitFinder
) -> tuple[tuple[ExitSite, ...], tuple[tuple[int, str], ...]]:
    """The exits of a system call's function where its result is known, those of other functions among them.

    And ``(address, reason)`` of what is missed.
    """
    sites: dict[int, ExitSite] = {}
    missed: list[tuple[int, str]] = []
    seen = {function.addr}
    frontier = [function]
    for _ in range(_DEEPEST + 1):
        behind: list[Function] = []
        for one in frontier:
            found = exits(one)
            if isinstance(found, str):
                missed.append((one.addr, f"it ends in {one.name}: {found}" if one is not function else found))
                continue
            missed += found.unprobeable
            for site in found.sites:
                target = calls.function_at(site.target) if site.target is not None else None
                if _holds(site):
                    sites[site.addr] = site
                elif target is None:
                    missed.append((site.addr, "it ends in a jump into the middle of a function"))
                elif function.addr not in calls.numbers:
                    missed.append((site.addr, "it is in no table of system calls of 64-bit programs"))
                elif target.addr not in seen:
                    seen.add(target.addr)
                    behind.append(target)
        frontier = behind
    missed += [(one.addr, f"too many functions end in one another, {one.name} last") for one in frontier]
    return tuple(sites.values()), tuple(missed)
