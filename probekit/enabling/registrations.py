"""List our registrations with the guest's kernel, and unregister each kind, for an engine and for a recovery.

kind                     kernel function                 unregistered
timer                    hrtimer_cancel                  before the wait for readers:
tracepoint               tracepoint_probe_unregister     afterwards the kernel does not call us any more
module                   module_put                      after the wait: nobody is in our code any more
die_notifier             unregister_die_notifier
bpf_ksym                 bpf_ksym_del
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from probekit.enabling.api import EngineLog
from probekit.errors import GuestError, required
from probekit.guest.calls import LIST_ENTRY_KINDS
from probekit.guest.facts import GuestFacts
from probekit.guest.safepoint import SafePoint
from probekit.guest.tracepoints import BatchRoutine, TracepointProbe
from probekit.guest.watchdog import Watchdog
from probekit.patch.edits import TextMemory
from probekit.patch.journal_payloads import BPF_KSYM, DIE_NOTIFIER, MODULE, TIMER, TRACEPOINT, Registration

__all__ = ("KEPT_BY_READERS", "Registrations")


class Registrations:
    """Keeps the registrations that were made, or are about to be made, and unregisters them."""

    def __init__(
        self,
        facts: GuestFacts,
        text: TextMemory,
        log: EngineLog,
        items: Iterable[Registration] = (),
        *,
        traced: bool = False,
    ) -> None:
        """Begin with ``items``, oldest first. ``text``: guest memory at a safe point.

        ``traced``: tracepoints may have been unregistered before, and nobody has waited for their readers since.
        """
        self._facts = facts
        self._text = text
        self._log = log
        self.items = dict.fromkeys(items)
        """Oldest first."""
        self.traced = traced
        """Whether readers of tracepoints have to be waited for."""
        self.routine: BatchRoutine | None = None
        """Our routine in the guest that unregisters many tracepoints in one guest call, while it is there."""

    def add(self, items: Sequence[Registration]) -> None:
        """Write registrations that are about to be made to the journal."""
        self.items.update(dict.fromkeys(items))  # to unregister one that was never made is harmless
        self._log.registered(items)

    def of_kind(self, *kinds: str) -> list[Registration]:
        """Return the registrations of these kinds, newest first."""
        return [item for item in reversed(self.items) if item.kind in kinds]

    def stop_calls(self, point: SafePoint) -> None:
        """Unregister timers and tracepoints, through which the kernel calls us by itself.

        Raises :class:`GuestError` when the kernel still calls us afterwards. Raises it before anything is done when
        there is a registration of a kind that this version cannot unregister; another version may have left it.
        """
        facts = self._facts
        services = {TIMER: facts.watchdog, TRACEPOINT: facts.tracepoints, MODULE: facts.module_refs}
        for kind in dict.fromkeys(item.kind for item in self.items):
            if services.get(kind) is None and LIST_ENTRY_KINDS.get(kind) not in facts.services.traps.functions:
                raise GuestError(f"cannot unregister a {kind}: this guest kernel has no known function for it")
        self._unregister(point, _BEFORE)

    def wait_for_readers(self, point: SafePoint) -> None:
        """Wait in guest calls until no task can be inside code of ours that was reachable before."""
        self._facts.services.synchronize(point)
        if self.traced and self._facts.tracepoints is not None:
            self._facts.tracepoints.synchronize(point)

    def unregister_rest(self, point: SafePoint) -> None:
        """Unregister all other kinds. Call this when nobody is inside our code."""
        self._unregister(point, _AFTER)

    def _unregister(self, point: SafePoint, table: Mapping[tuple[str, ...], _Unregister]) -> None:
        for kinds, unregister in table.items():
            items = self.of_kind(*kinds)
            for done in unregister(self, point, items) if items else ():
                self._log.unregistered(done)
                for item in done:
                    del self.items[item]

    def _stop_timers(self, point: SafePoint, items: Sequence[Registration]) -> Iterator[Sequence[Registration]]:
        services = required(self._facts.watchdog, "the kernel's timers, which stop_calls() has found")
        for item in items:
            services.stop_watching(point, Watchdog(*item.words), self._read)
            yield [item]

    def _disconnect_tracepoints(
        self, point: SafePoint, items: Sequence[Registration]
    ) -> Iterator[Sequence[Registration]]:
        services = required(self._facts.tracepoints, "the kernel's tracepoints, which stop_calls() has found")
        hooks = services.still_registered(
            self._text.read_many, [TracepointProbe(*item.words) for item in reversed(items)]
        )
        stuck = services.unregister_probes(point, hooks, self.routine, self._text.write_many)
        if stuck:
            raise GuestError(f"the guest kernel still calls probekit at {len(stuck)} tracepoints")
        yield items[::-1]
        self.traced = True

    def _put_modules(self, point: SafePoint, items: Sequence[Registration]) -> Iterator[Sequence[Registration]]:
        services = required(self._facts.module_refs, "the kernel's modules, which stop_calls() has found")
        for item in items:
            services.give_back(point, item.words[0])
            yield [item]

    def _remove_trap_hooks(self, point: SafePoint, items: Sequence[Registration]) -> Iterator[Sequence[Registration]]:
        hooks = self._facts.services.traps
        for item in items:
            hooks.remove(point, LIST_ENTRY_KINDS[item.kind], item.words[0])
            yield [item]
        hooks.settle(point)

    def _read(self, addr: int, size: int) -> bytes:
        (data,) = self._text.read_many([(addr, size)])
        if data is None:
            raise GuestError(f"the guest's memory at {addr:#x} cannot be read")
        return data


KEPT_BY_READERS = (DIE_NOTIFIER, BPF_KSYM)
"""Kinds that are on lists of the kernel. A CPU that reads such a list may still use an item that was removed."""

_Unregister = Callable[[Registrations, SafePoint, Sequence[Registration]], Iterator[Sequence[Registration]]]
"""Unregisters the given items, newest first. Yields each part of them when it is done."""

_BEFORE: Mapping[tuple[str, ...], _Unregister] = {
    (TIMER,): Registrations._stop_timers,
    (TRACEPOINT,): Registrations._disconnect_tracepoints,
}
"""How each kind is unregistered that must go before the wait for readers."""

_AFTER: Mapping[tuple[str, ...], _Unregister] = {
    (MODULE,): Registrations._put_modules,
    KEPT_BY_READERS: Registrations._remove_trap_hooks,
}
"""How each kind is unregistered that must stay until the wait for readers is over."""
