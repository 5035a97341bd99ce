"""What the guest's kernel was told of, and how each kind is taken back: by the engine, and by a later recovery.

timer                    hrtimer_cancel                  before the wait for readers:
tracepoint               tracepoint_probe_unregister     the kernel does not call us by itself any more
module                   module_put                      behind it: nobody comes to our code any more
die_notifier, bpf_ksym   unregister_die_notifier, bpf_ksym_del
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from probekit.enabling.api import EngineLog
from probekit.errors import GuestError, InternalError
from probekit.guest.facts import GuestFacts
from probekit.guest.safepoint import SafePoint
from probekit.guest.tracepoints import BatchRoutine, TracepointProbe
from probekit.guest.watchdog import Watchdog
from probekit.patch.edits import TextMemory
from probekit.patch.journal_state import Registration

__all__ = ("BPF_KSYM", "KEPT_BY_READERS", "MODULE", "TIMER", "TRACEPOINT", "Registered")

TIMER = "timer"
TRACEPOINT = "tracepoint"
MODULE = "module"
BPF_KSYM = "bpf_ksym"
_DIE_NOTIFIER = "die_notifier"
"""Kinds of :class:`probekit.patch.journal.Registration`. Their words: (words of a watchdog, its function);
(tracepoint, function, data); (struct module); and of the last two the address of the structure."""


class Registered:
    """``items``: about to be made, or made, and not taken back, oldest first. ``text``: of the guest at a safe point.

    ``traced``: some were tracepoints' and are taken back: their readers are to be waited for.
    ``routine``: of ours in the guest, which unregisters many tracepoints in one guest call; None once it is not there.
    """

    def __init__(self, facts: GuestFacts, text: TextMemory, log: EngineLog, items: Iterable[Registration] = ()) -> None:
        self._facts = facts
        self._text = text
        self._log = log
        self.items = dict.fromkeys(items)
        self.traced = False
        self.routine: BatchRoutine | None = None

    def add(self, items: Sequence[Registration]) -> None:
        """The log hears of them now."""
        self._log.registered(items)
        self.items.update(dict.fromkeys(items))

    def of_kind(self, *kinds: str) -> list[Registration]:
        """Those of these kinds, newest first."""
        return [item for item in reversed(self.items) if item.kind in kinds]

    def stop_calls(self, point: SafePoint) -> None:
        """From now on the kernel does not call us by itself. Raises :class:`GuestError` when it would go on.

        Before anything is done that is also said of what nobody here can take back, as another version of probekit may
        have left behind.
        """
        facts = self._facts
        services = {TIMER: facts.watchdog, TRACEPOINT: facts.tracepoints, MODULE: facts.holds}
        for kind in dict.fromkeys(item.kind for item in self.items):
            if services.get(kind) is None and kind not in facts.services.hooks.functions:
                raise GuestError(f"nothing is known of how this guest's kernel forgets a {kind}")
        self._take_back(point, _BEFORE)

    def let_go(self, point: SafePoint) -> None:
        """The kernel forgets all the rest; nobody is inside our code."""
        self._take_back(point, _BEHIND)

    def _take_back(self, point: SafePoint, ways: Mapping[tuple[str, ...], _Way]) -> None:
        for kinds, way in ways.items():
            items = self.of_kind(*kinds)
            for done in way(self, point, items) if items else ():
                self._log.unregistered(done)
                for item in done:
                    del self.items[item]

    def _stop_timers(self, point: SafePoint, items: Sequence[Registration]) -> Iterator[Sequence[Registration]]:
        services = self._facts.watchdog
        if services is None:
            raise InternalError("something is registered that this kernel has no function for")
        for item in items:
            services.stop_watching(point, Watchdog(*item.words), self._read)
            yield [item]

    def _disconnect(self, point: SafePoint, items: Sequence[Registration]) -> Iterator[Sequence[Registration]]:
        services = self._facts.tracepoints
        if services is None:
            raise InternalError("something is registered that this kernel has no function for")
        hooks = services.standing(self._text.read_many, [TracepointProbe(*item.words) for item in reversed(items)])
        stuck = services.disconnect(point, hooks, self.routine, self._text.write_many)
        if stuck:
            raise GuestError(f"the guest kernel still calls probekit at {len(stuck)} tracepoints")
        yield items[::-1]
        self.traced = True
        if self._facts.grace is None:
            services.synchronize(point)

    def _release(self, point: SafePoint, items: Sequence[Registration]) -> Iterator[Sequence[Registration]]:
        services = self._facts.holds
        if services is None:
            raise InternalError("something is registered that this kernel has no function for")
        for item in items:
            services.release(point, item.words[0])
            yield [item]

    def _unhook(self, point: SafePoint, items: Sequence[Registration]) -> Iterator[Sequence[Registration]]:
        hooks = self._facts.services.hooks
        for item in items:
            hooks.remove(point, item.kind, item.words[0])
            yield [item]
        hooks.settle(point)

    def _read(self, addr: int, size: int) -> bytes:
        (data,) = self._text.read_many([(addr, size)])
        if data is None:
            raise GuestError(f"the guest's memory at {addr:#x} cannot be read")
        return data


KEPT_BY_READERS = (_DIE_NOTIFIER, BPF_KSYM)
"""Kinds that somebody who reads the kernel's list of them may hold on to for a while."""

_Way = Callable[[Registered, SafePoint, Sequence[Registration]], Iterator[Sequence[Registration]]]
"""Takes those of its kinds back, newest first, and gives each part of them when it is done."""

_BEFORE: Mapping[tuple[str, ...], _Way] = {
    (TIMER,): Registered._stop_timers,
    (TRACEPOINT,): Registered._disconnect,
}
_BEHIND: Mapping[tuple[str, ...], _Way] = {
    (MODULE,): Registered._release,
    KEPT_BY_READERS: Registered._unhook,
}
