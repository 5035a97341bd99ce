"""Functions of ours as probes of the kernel's tracepoints, by the kernel's own registration.

Registering a probe changes static calls and static keys, a list that readers
walk without a lock, and what the kernel knows of its own state: only the kernel
can do that right, so it is asked to. One guest call serves any number of
tracepoints: a small routine walks a table of ours::

    struct tracepoint *, function, data       24 bytes an entry, an entry without a function is passed over
    calls(table, end, register)               register(tracepoint, function, data) for each, until one fails

Behind the unregistration a probe may still run: readers are in SRCU
(``tracepoint_srcu``, commit e6753f23d961, v4.19) or, where tracepoints may fault,
in RCU tasks trace (commit a363d27cdbc2, v6.13), besides RCU proper.
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
    "Hooked",
    "Routine",
    "TracepointServices",
    "call_table",
    "caller_code",
    "find_tracepoint_services",
)

_ENTRY = struct.Struct("<QQQ")
CALL_ENTRY_SIZE = _ENTRY.size
_SECONDS_EACH = 0.25  # under an emulator and load; the whole call has that much time for every entry
_PATIENCE = 60.0

Writer = Callable[[Iterable[tuple[int, bytes]]], None]


class Hooked(NamedTuple):
    """A function of ours at a tracepoint. ``data``: handed to it as its first argument."""

    tracepoint: int
    function: int
    data: int = 0


@lru_cache(maxsize=1)
def caller_code() -> bytes:
    """The routine. It is called as a C function at any address.

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


def call_table(hooks: Sequence[Hooked]) -> bytes:
    """The table of the routine."""
    return b"".join(_ENTRY.pack(*hook) for hook in hooks)


class Routine(NamedTuple):
    """Where :func:`caller_code` is in the guest, and its table."""

    caller: int
    table: int


@dataclass(frozen=True, slots=True)
class TracepointServices:
    """Addresses of the kernel's functions. ``waits``: (function, argument) of what waits for readers besides RCU."""

    register: int
    unregister: int
    waits: tuple[tuple[int, int], ...]
    probes: ProbeListLayout

    def connect(self, point: SafePoint, hooks: Sequence[Hooked], routine: Routine, write: Writer) -> None:
        """Register every hook. ``write``: guest memory.

        Raises :class:`GuestError` at the first that the kernel refuses; those before it are registered then.
        """
        write([(routine.table, call_table(hooks))])
        at, errno = self._walk(point, self.register, routine, 0, len(hooks))
        if at < len(hooks):
            raise GuestError(
                f"the guest kernel refused a probe at the tracepoint at {hooks[at].tracepoint:#x} (error {errno})",
                hint="the guest may be short of memory",
            )

    def standing(self, read: ReadRanges, hooks: Sequence[Hooked]) -> tuple[Hooked, ...]:
        """Those that the kernel has registered now. To unregister any other would make it warn."""
        found = self.probes.registered(read, list(dict.fromkeys(hook.tracepoint for hook in hooks)))
        return tuple(hook for hook in hooks if (hook.function, hook.data) in found[hook.tracepoint])

    def disconnect(
        self, point: SafePoint, hooks: Sequence[Hooked], routine: Routine | None, write: Writer
    ) -> list[int]:
        """Unregister every hook, whatever becomes of the others. Returns the tracepoints that would not let go.

        ``routine``: None where it cannot be relied on: each is then a guest call of its own.
        """
        if routine is None:
            return [hook.tracepoint for hook in hooks if point.call(self.unregister, *hook) & 0xFFFFFFFF]
        write([(routine.table, call_table(hooks))] if hooks else [])
        stuck: list[int] = []
        first = 0
        while first < len(hooks):
            at, _ = self._walk(point, self.unregister, routine, first, len(hooks))
            if at < len(hooks):
                stuck.append(hooks[at].tracepoint)
            first = at + 1
        return stuck

    def synchronize(self, point: SafePoint, *, timeout: float = _PATIENCE) -> None:
        """Wait until nobody is inside a function that was unregistered. RCU proper is the caller's to wait for."""
        for function, argument in self.waits:
            point.call(function, argument, timeout=timeout)

    def _walk(self, point: SafePoint, function: int, routine: Routine, first: int, count: int) -> tuple[int, int]:
        """The index of the entry where the routine stopped, and the error."""
        begin, end = routine.table + _ENTRY.size * first, routine.table + _ENTRY.size * count
        patience = _PATIENCE + _SECONDS_EACH * (count - first)
        result = point.call(routine.caller, begin, end, function, timeout=patience)
        return first + (result & (1 << 48) - 1) // _ENTRY.size, result >> 48


def find_tracepoint_services(
    find: Callable[[str], int | None], probes: ProbeListLayout | None
) -> TracepointServices | None:
    """Look the functions up by name; None for a kernel without tracepoints, or without types to find them."""
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
