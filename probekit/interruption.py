"""Lets long work be given up when the user wants to stop, at places where nothing is half done.

A signal only sets a flag (:mod:`probekit.session.signals`). Long loops and waits call :func:`check_interrupted`, which
raises :class:`probekit.errors.Cancelled` inside :func:`interruptible` and does nothing elsewhere. The session enters
:func:`interruptible` around work that may be given up at any such place: attaching, matching, finding sites, building
code. A guest call, a change of text and the restoring of the guest are outside, so that they are never cut in two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from probekit.errors import Cancelled

__all__ = ("check_interrupted", "interruptible", "uninterrupted", "until_interrupted")

_T = TypeVar("_T")


class _Work:
    """One piece of work that may be given up."""

    __slots__ = ("unwinding", "wanted")

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self.wanted = wanted
        self.unwinding = False
        """Whether the work is given up already. What tidies up after it must not be interrupted again."""


_current: ContextVar[_Work | None] = ContextVar("interruptible work", default=None)


def check_interrupted() -> None:
    """Raise :class:`Cancelled`, once, when the user wants to stop and the work under way may be given up."""
    work = _current.get()
    if work is not None and not work.unwinding and work.wanted():
        work.unwinding = True
        raise Cancelled("interrupted")


def until_interrupted(items: Iterable[_T]) -> Iterator[_T]:
    """Yield ``items``; call :func:`check_interrupted` before each."""
    for item in items:
        check_interrupted()
        yield item


@contextmanager
def interruptible(wanted: Callable[[], bool]) -> Iterator[None]:
    """Let :func:`check_interrupted` give up the work of the body. ``wanted``: returns whether the user wants to stop.

    The body must not yield to a caller, who would become interruptible too.
    """
    token = _current.set(_Work(wanted))
    try:
        check_interrupted()
        yield
    finally:
        _current.reset(token)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Do the body to its end: :func:`check_interrupted` does nothing in it. It must be short."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
