"""Ask all providers of a session as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

from probekit.probe.names import ProbeDescription
from probekit.providers.api import KERNEL_MODULE, Probe, Provider
from probekit.providers.dtrace import DtraceProvider
from probekit.providers.profile import ProfileProvider

if TYPE_CHECKING:
    from probekit.providers.function_table import FunctionTable
    from probekit.providers.marker import Markers
    from probekit.providers.mem import KernelVariable
    from probekit.providers.tracepoint import Tracepoints

__all__ = ("Registry", "make_registry", "resolve_alias")

_FIRST_FBT_ID = 4

_ALIASES = {"sdt": "tracepoint", "rawtp": "tracepoint"}
"""Names that DTrace on Linux has for tracepoints."""

_BPFTRACE = {"kprobe": "entry", "kretprobe": "return"}
"""The name of an ``fbt`` probe by bpftrace's name for its kind."""

CodeReader = Callable[[Sequence[tuple[int, int]]], "list[bytes | None]"]
"""Reads ``(address, size)`` ranges of live text; None where one is unreadable."""


def resolve_alias(description: ProbeDescription) -> ProbeDescription:
    """Translate what other tracers write into the names that probes have here.

    These are DTrace's ``sdt:sched::sched_switch`` and ``rawtp:vmlinux::sched_switch``; bpftrace's ``kprobe:vfs_read``,
    ``kretprobe:vfs_read`` and ``tracepoint:sched:sched_switch``, which in D would lack the provider.
    """
    provider, module, function, name = description.provider, description.module, description.function, description.name
    if provider in _ALIASES:
        raw = provider == "rawtp" and module == KERNEL_MODULE  # a tracepoint's module is its trace system here
        return ProbeDescription(_ALIASES[provider], "" if raw else module, function, name)
    if not provider and not module and function in _BPFTRACE:
        return ProbeDescription("fbt", "", name, _BPFTRACE[function])
    if not provider and module == "tracepoint" and function:
        return ProbeDescription("tracepoint", function, "", name)
    return description


class Registry:
    """Matches descriptions against every provider."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = tuple(providers)

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that a description names, in ID order within a provider."""
        description = resolve_alias(description)
        if description.probe_id is not None:
            probe = self.by_id(description.probe_id)
            if probe is not None:
                yield probe
            return
        for provider in self._providers:
            yield from provider.match(description)

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        return next((p for provider in self._providers if (p := provider.by_id(probe_id)) is not None), None)


def make_registry(
    table: FunctionTable | None,
    read_code: CodeReader | None = None,
    tracepoints: Tracepoints | None = None,
    find_variable: Callable[[str], KernelVariable | None] | None = None,
    markers: Markers | None = None,
) -> Registry:
    """Make the registry of a session. ``table``: the guest kernel's functions (None without a guest).

    A provider whose argument is None is missing: ``read_code`` belongs to ``kinst``, ``tracepoints`` to
    ``tracepoint``, ``find_variable`` to ``mem`` and ``markers`` to ``marker``.
    """
    if table is None:
        return Registry((DtraceProvider(), ProfileProvider(count(_FIRST_FBT_ID))))
    from probekit.providers.fbt import FbtProvider
    from probekit.providers.kinst import KinstProvider
    from probekit.providers.mem import MemProvider
    from probekit.providers.syscall import SyscallProvider

    fbt = FbtProvider(table, _FIRST_FBT_ID)
    providers: list[Provider] = [DtraceProvider(), fbt]
    end_id = fbt.end_id
    if tracepoints is not None:
        from probekit.providers.tracepoint import TracepointProvider

        tracepoint = TracepointProvider(tracepoints, end_id)
        providers.append(tracepoint)
        end_id = tracepoint.end_id
    syscall = SyscallProvider(table, end_id)
    providers.append(syscall)
    on_demand = count(syscall.end_id)
    if read_code is not None:
        providers.append(KinstProvider(table, read_code, on_demand))
    if find_variable is not None:
        providers.append(MemProvider(find_variable, on_demand))
    if markers is not None:
        from probekit.providers.marker import MarkerProvider

        providers.append(MarkerProvider(markers, on_demand))
    return Registry((*providers, ProfileProvider(on_demand)))
