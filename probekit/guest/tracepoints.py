"""Register functions of ours as probes of the kernel's tracepoints.

Registering a probe changes static calls, static keys and a list that readers
walk without a lock. Only the kernel can change these safely, so we call its own
registration function. One guest call serves any number of tracepoints: a small
routine of ours walks a table::

    struct tracepoint *, function, data       24 bytes an entry; an entry without a function is skipped
    calls(table, end, register)               register(tracepoint, function, data) for each, until one fails

After the unregistration a probe may still run. The kernel calls probes as readers
of RCU, of SRCU (``tracepoint_srcu``, commit e6753f23d961, v4.19) or, for tracepoints
that may fault, of RCU tasks trace (commit a363d27cdbc2, v6.13).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from probekit.errors import GuestError
from probekit.guest.safepoint import SafePoint
from probekit.isa.assemble import assemble
from probekit.kernel.tracepoints import ProbeListLayout, ReadRanges

__all__ = (
    "CALL_ENTRY_SIZE",
    "BatchRoutine",
    "TracepointProbe",
    "TracepointServices",
    "call_table",
    "caller_code",
    "find_tracepoint_services",
)

_ENTRY = struct.Struct("<QQQ")
CALL_ENTRY_SIZE = _ENTRY.size
"""Bytes of an entry of the table."""

_SECONDS_PER_ENTRY = 0.25  # under an emulator and load; added to the time limit of the whole call
_CALL_TIMEOUT = 60.0  # seconds

Writer = Callable[[Iterable[tuple[int, bytes]]], None]


class TracepointProbe(NamedTuple):
    """A function of ours as a probe of one tracepoint."""

    tracepoint: int
    """Address of the ``struct tracepoint``."""
    function: int
    """Address of our function."""
    data: int = 0
    """The first argument that the kernel passes to the function."""


@lru_cache(maxsize=1)
def caller_code() -> bytes:
    """Assemble the routine. It runs at any address and is called as a C function.

    rdi: table, rsi: its end, rdx: what to call  ->  rax: offset of the entry that failed (or the end's), errno << 48
    """
    return assemble(
        """
            endbr64
            push rbx
            push rbp
            push r12
            push r13
            push r14
            mov rbx, rdi
            mov r13, rdi
            mov rbp, rsi
            mov r12, rdx
            xor eax, eax
        next:
            cmp rbx, rbp
            jae done
            mov rsi, qword ptr [rbx + 8]
            test rsi, rsi
            jz skip
            mov rdi, qword ptr [rbx]
            mov rdx, qword ptr [rbx + 16]
            call r12
            test eax, eax
            js done
        skip:
            xor eax, eax
            add rbx, 24
            jmp next
        done:
            neg eax
            shl rax, 48
            sub rbx, r13
            or rax, rbx
            pop r14
            pop r13
            pop r12
            pop rbp
            pop rbx
            ret
        """,
        0,
    )


def call_table(probes: Sequence[TracepointProbe]) -> bytes:
    """Make the bytes of the routine's table, :data:`CALL_ENTRY_SIZE` for each probe."""
    return b"".join(_ENTRY.pack(*probe) for probe in probes)


class BatchRoutine(NamedTuple):
    """The routine that registers many probes in one guest call, as it lies in the guest."""

    caller: int
    """Address of :func:`caller_code`."""
    table: int
    """Address of the memory for its table."""


@dataclass(frozen=True, slots=True)
class TracepointServices:
    """Registers and unregisters probes of tracepoints, by the kernel's functions."""

    register: int
    """Address of ``tracepoint_probe_register``."""
    unregister: int
    """Address of ``tracepoint_probe_unregister``."""
    waits: tuple[tuple[int, int], ...]
    """``(function, argument)`` of each call that waits for readers, other than those of RCU itself."""
    probe_lists: ProbeListLayout
    """Reads the kernel's list of a tracepoint's probes."""

    def register_probes(
        self, point: SafePoint, probes: Sequence[TracepointProbe], routine: BatchRoutine, write: Writer
    ) -> None:
        """Register every probe. ``write``: writes guest memory.

        Raises :class:`GuestError` at the first probe that the kernel refuses; those before it are registered then.
        """
        write([(routine.table, call_table(probes))])
        at, errno = self._walk(point, self.register, routine, 0, len(probes))
        if at < len(probes):
            raise GuestError(
                f"the guest kernel refused a probe at the tracepoint at {probes[at].tracepoint:#x} (error {errno})",
                hint="the guest may be short of memory",
            )

    def still_registered(self, read: ReadRanges, probes: Sequence[TracepointProbe]) -> tuple[TracepointProbe, ...]:
        """Return those of ``probes`` that the kernel has registered now. It warns when another one is unregistered."""
        found = self.probe_lists.registered(read, list(dict.fromkeys(probe.tracepoint for probe in probes)))
        return tuple(probe for probe in probes if (probe.function, probe.data) in found[probe.tracepoint])

    def unregister_probes(
        self, point: SafePoint, probes: Sequence[TracepointProbe], routine: BatchRoutine | None, write: Writer
    ) -> list[int]:
        """Unregister every probe, even after a failure. Returns the addresses of tracepoints where the kernel refused.

        ``routine``: None where it may not be in the guest; each probe is then a guest call of its own.
        """
        if routine is None:
            return [probe.tracepoint for probe in probes if point.call(self.unregister, *probe) & 0xFFFFFFFF]
        write([(routine.table, call_table(probes))] if probes else [])
        stuck: list[int] = []
        first = 0
        while first < len(probes):
            at, _ = self._walk(point, self.unregister, routine, first, len(probes))
            if at < len(probes):
                stuck.append(probes[at].tracepoint)
            first = at + 1
        return stuck

    def synchronize(self, point: SafePoint, *, timeout: float = _CALL_TIMEOUT) -> None:
        """Wait until no CPU is inside a function that was unregistered. The caller must also wait for RCU itself."""
        for function, argument in self.waits:
            point.call(function, argument, timeout=timeout)

    def _walk(self, point: SafePoint, function: int, routine: BatchRoutine, first: int, count: int) -> tuple[int, int]:
        """Run the routine from entry ``first`` on. Returns the index of the entry where it stopped, and the error."""
        begin, end = routine.table + _ENTRY.size * first, routine.table + _ENTRY.size * count
        timeout = _CALL_TIMEOUT + _SECONDS_PER_ENTRY * (count - first)
        result = point.call(routine.caller, begin, end, function, timeout=timeout)
        return first + (result & (1 << 48) - 1) // _ENTRY.size, result >> 48


def find_tracepoint_services(
    find: Callable[[str], int | None], probes: ProbeListLayout | None
) -> TracepointServices | None:
    """Look the functions up by name. Returns None for a kernel without tracepoints, or without types to find them."""
    register, unregister = find("tracepoint_probe_register"), find("tracepoint_probe_unregister")
    if register is None or unregister is None or probes is None:
        return None
    waits: list[tuple[int, int]] = []
    domain, wait = find("tracepoint_srcu"), find("synchronize_srcu")
    if domain is not None and wait is not None:
        waits.append((wait, domain))
    trace = find("synchronize_rcu_tasks_trace")
    if trace is not None:
        waits.append((trace, 0))
    return TracepointServices(register, unregister, tuple(waits), probes)
