"""Allows one trace of a guest at a time, and one thread at a time to talk to it.

A second trace, or a second reader of one trace, is refused before anything is allocated in the guest. Short operations
of other threads wait for their turn. A program that ends without having closed its traces closes them here.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import Generic, Protocol, TypeVar

from probekit.errors import DetachedError, InUseError, ProbekitError

__all__ = ("ExclusiveSteps", "ExclusiveUse", "TraceTurns", "detach_at_exit")

_T = TypeVar("_T")


class _Closable(Protocol):
    def close(self) -> None: ...


class ExclusiveUse:
    """Keeps which trace of a guest is live, and which thread talks to the guest."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._live: _Closable | None = None
        self._detached = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other thread talks to the guest; keep others out for the body. Re-entrant.

        Raises :class:`DetachedError` after :meth:`detach`.
        """
        with self._lock:
            if self._detached:
                raise DetachedError("the guest was detached", hint="attach to it again")
            yield

    @property
    def detached(self) -> bool:
        """Whether the guest was detached."""
        return self._detached

    def begin(self, trace: _Closable) -> None:
        """Note that ``trace`` is about to change the guest. Raises :class:`InUseError` when another one has."""
        with self.turn():
            if self._live is not None and self._live is not trace:
                raise InUseError(
                    "another trace of this guest is live: there can be one at a time",
                    hint="read its events to the end or close it first; one script may have all clauses",
                )
            self._live = trace

    def end(self, trace: _Closable) -> None:
        """Note that ``trace`` has restored the guest. Nothing happens when it was not live."""
        with self._lock:
            if self._live is trace:
                self._live = None

    def detach(self, let_go: Callable[[], None]) -> None:
        """Close the live trace, then call ``let_go``, also when closing has failed. Does nothing the second time."""
        with self._lock:
            if self._detached:
                return
            try:
                if self._live is not None:
                    self._live.close()
            finally:
                self._detached = True
                self._live = None
                let_go()


class TraceTurns:
    """Keeps when one trace may use its guest. Without a guest it always may."""

    def __init__(self, use: ExclusiveUse | None, trace: _Closable) -> None:
        self._use = use
        self._trace = trace
        self._begun = False
        self.closed = False
        """Whether the trace was closed, perhaps by another thread."""

    def begin(self) -> None:
        """Note that the trace is about to change the guest. Raises :class:`InUseError`, :class:`DetachedError`."""
        if self._use is not None:
            self._use.begin(self._trace)
        self._begun = True

    def end(self) -> None:
        """Note that the guest is restored."""
        if self._use is not None:
            self._use.end(self._trace)

    def check(self) -> None:
        """Raise :class:`DetachedError` when the guest was detached before the trace began."""
        if not (self._begun or self.closed):
            with self.exclusive():
                pass

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other threads from the guest for the body of a ``with``. Raises :class:`DetachedError`."""
        return self._use.turn() if self._use is not None else nullcontext()

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Do the same, also after the guest was detached.

        Yields whether the trace is open: another thread may just have closed it, or detached from the guest.
        """
        with ExitStack() as stack:
            with suppress(DetachedError):
                stack.enter_context(self.exclusive())
            yield not self.closed


class ExclusiveSteps(Generic[_T]):
    """Lets one reader at a time take the steps of a generator. An iterator."""

    def __init__(self, steps: Generator[_T], turn: Callable[[], object]) -> None:
        """``turn``: raises an error when no step may be taken any more."""
        self._steps = steps
        self._turn = turn
        self._taken = threading.Lock()

    def __iter__(self) -> ExclusiveSteps[_T]:
        return self

    def __next__(self) -> _T:
        """Take a step. Raises :class:`InUseError` while another one is being taken, by whatever thread."""
        if not self._taken.acquire(blocking=False):
            raise InUseError("the events of this trace are being read already", hint="read them in one place")
        try:
            self._turn()
            return next(self._steps)
        finally:
            self._taken.release()

    def close(self) -> None:
        """End the generator, unless a step is being taken: whoever takes it finds that the trace was closed."""
        if self._taken.acquire(blocking=False):
            try:
                self._steps.close()
            finally:
                self._taken.release()


class _Detachable(Protocol):
    def detach(self) -> None: ...


def detach_at_exit(attachment: _Detachable) -> None:
    """Detach when the interpreter ends, in case that the program does not. It does not keep ``attachment`` alive."""
    found = weakref.ref(attachment)

    def at_exit() -> None:
        left = found()
        if left is not None:
            with suppress(ProbekitError):  # nobody is left to hear of it; the journal stays
                left.detach()

    atexit.register(at_exit)
    weakref.finalize(attachment, atexit.unregister, at_exit).atexit = False
