"""Find where a system call returns when its function ends in a jump to another one.

``__x64_sys_read`` ends in ``jmp ksys_read``: the result of the call is only known where ``ksys_read`` returns. Other
functions call that one too, so a firing there counts only when it returns to the kernel's entry code and the task is in
that system call. This leaves the stack unchanged, unlike a return probe that replaces the return address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from probekit.kernel.syscalls import Abi, call_function
from probekit.patch.sites import ExitSite, FunctionExits
from probekit.providers.api import Function

__all__ = ("ExitFinder", "SystemCalls", "final_exits", "load_jump_targets")

_MAX_JUMPS = 4  # how many jumps to a next function are followed

ExitFinder = Callable[[Function], FunctionExits | str]
"""Returns the exits of a function, or why it has none that can be probed."""


@dataclass(frozen=True, slots=True)
class SystemCalls:
    """The kernel's system calls."""

    numbers: Mapping[int, tuple[int, ...]]
    """The numbers of each system call, by its function's address: ``CallNumbers.by_function``."""
    function_at: Callable[[int], Function | None]
    """Returns the function that begins at an address."""
    complete: frozenset[Abi] = frozenset()
    """The ways in all of whose functions are in ``numbers``."""

    def never_called(self, function: Function) -> bool:
        """Return whether no number of a system call leads to this function.

        The kernel's macros make one for each way in and each system call, needed or not.
        """
        found = call_function(function.name)
        return found is not None and found.abi in self.complete and function.addr not in self.numbers


def load_jump_targets(
    functions: Iterable[Function], calls: SystemCalls, learn: Callable[[list[Function]], None], exits: ExitFinder
) -> None:
    """Call ``learn`` with the functions whose exits :func:`final_exits` will need, so that many are read at once.

    ``functions``: those of the system calls.
    """
    known = {function.addr: function for function in functions}
    frontier = list(known.values())
    for _ in range(_MAX_JUMPS):
        found = {target.addr: target for function in frontier for target in _targets(exits(function), calls)}
        frontier = [function for addr, function in found.items() if addr not in known]
        if not frontier:
            return
        learn(frontier)
        known |= {function.addr: function for function in frontier}


def _targets(found: FunctionExits | str, calls: SystemCalls) -> list[Function]:
    if isinstance(found, str):
        return []
    targets = (
        calls.function_at(site.target) for site in found.sites if site.target is not None and not _has_result(site)
    )
    return [target for target in targets if target is not None]


def _has_result(site: ExitSite) -> bool:
    """Return whether rax holds the function's result at this exit."""
    return site.kind in ("ret", "return_thunk")


def final_exits(
    function: Function, calls: SystemCalls, exits: ExitFinder
) -> tuple[tuple[ExitSite, ...], tuple[tuple[int, str], ...]]:
    """Find the exits where the result of a system call is known, in its function and in functions that it jumps to.

    Returns the exits, and ``(address, reason)`` for each exit that cannot be probed.
    """
    sites: dict[int, ExitSite] = {}
    missed: list[tuple[int, str]] = []
    seen = {function.addr}
    frontier = [function]
    for _ in range(_MAX_JUMPS + 1):
        targets: list[Function] = []
        for current in frontier:
            found = exits(current)
            if isinstance(found, str):
                why = f"it ends in {current.name}: {found}" if current is not function else found
                missed.append((current.addr, why))
                continue
            missed += found.unprobeable
            for site in found.sites:
                target = calls.function_at(site.target) if site.target is not None else None
                if _has_result(site):
                    sites[site.addr] = site
                elif target is None:
                    missed.append((site.addr, "it ends in a jump into the middle of a function"))
                elif function.addr not in calls.numbers:
                    missed.append((site.addr, "no number of a system call is known to lead to it"))
                elif target.addr not in seen:
                    seen.add(target.addr)
                    targets.append(target)
        frontier = targets
    why = "too many functions end in a jump to the next, the last is"
    missed += [(last.addr, f"{why} {last.name}") for last in frontier]
    return tuple(sites.values()), tuple(missed)
