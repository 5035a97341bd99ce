"""Errors, each with the facts as fields.

Three channels never mix. What is wrong with the user's *script* is a
:class:`probekit.lang.diagnostics.Diagnostic`. What is wrong with the world (a
stub, a guest, a file) is a :class:`ProbekitError` from here: ``str()`` of it is one
readable paragraph, and ``hint`` says what to do next. A bug of probekit itself is an
:class:`InternalError`, which no handler of the other two catches.
"""

from __future__ import annotations

from typing import TypeVar

__all__ = (
    "BusyError",
    "Cancelled",
    "ConflictError",
    "DetachedError",
    "GuestError",
    "GuestGone",
    "GuestPaused",
    "InUseError",
    "InternalError",
    "JournalError",
    "MachineRan",
    "MemoryAccessError",
    "ProbekitError",
    "ProtocolError",
    "SafePointTimeout",
    "SymbolError",
    "TargetError",
    "TargetLost",
    "TargetTimeout",
    "UnsupportedError",
    "required",
)

_T = TypeVar("_T")


class InternalError(Exception):
    """A bug of probekit: something that its own code rules out has happened.

    It shares no base class with the errors of users and guests, and ``python -O`` does not remove the checks that
    raise it.
    """


def required(value: _T | None, what: str) -> _T:
    """Return ``value``, which is never None here. ``what`` names it. Raises :class:`InternalError` for None."""
    if value is None:
        raise InternalError(f"{what} is missing")
    return value


class ProbekitError(Exception):
    """Base of every error that probekit raises on purpose.

    ``hint``: what the user can do next, or empty.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class TargetError(ProbekitError):
    """The hypervisor's stub refused or failed a request."""


class TargetLost(TargetError):
    """The connection to the stub is gone (closed, reset, QEMU ended)."""


class TargetTimeout(TargetError):
    """The stub did not answer in time. ``seconds``: how long was waited."""

    def __init__(self, message: str, *, seconds: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.seconds = seconds


class MachineRan(TargetError):
    """Somebody else let the machine run while we had it stopped: what was read of it before holds no longer."""


class ProtocolError(TargetError):
    """The stub answered something that is not the gdb remote protocol. ``reply``: the raw bytes (bounded)."""

    def __init__(self, message: str, *, reply: bytes = b"", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reply = reply[:256]


class MemoryAccessError(TargetError):
    """Guest memory could not be read or written. ``addr``: guest virtual address; ``size``: bytes."""

    def __init__(self, message: str, *, addr: int, size: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.addr = addr
        self.size = size


class UnsupportedError(ProbekitError):
    """The target or guest lacks a feature that was asked for. ``feature``: its name."""

    def __init__(self, message: str, *, feature: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.feature = feature


class SymbolError(ProbekitError):
    """The kernel, its symbols or its types could not be found or do not fit."""


class GuestError(ProbekitError):
    """The guest is not in the state that an operation needs, or answered wrongly."""


class GuestGone(GuestError):
    """The kernel that is traced does not run any more: it rebooted, panicked or shut down. Nothing can be restored."""

    def __init__(self, message: str, *, hint: str = "", intact: bool = True) -> None:
        """``intact``: whether the guest's memory still is what it was then, as far as anybody can tell."""
        super().__init__(message, hint=hint)
        self.intact = intact


class GuestPaused(GuestError):
    """Somebody has paused the guest, and an operation needs it to run. Only whoever paused it lets it run."""

    def __init__(self, doing: str) -> None:
        """``doing``: what needs the guest to run, for the message."""
        super().__init__(
            f"the guest is paused, and {doing} needs it to run",
            hint="resume it first: `cont` in QEMU's monitor, `virsh resume`, or the debugger that stopped it",
        )


class Cancelled(ProbekitError):
    """The user interrupted an operation before it had changed anything.

    ``exit_code``: 128 and the number of the signal, once that is known.
    """

    exit_code = 130


class SafePointTimeout(GuestError):
    """No vCPU reached a place where a kernel function may be called. ``seconds``: the limit."""

    def __init__(self, message: str, *, seconds: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.seconds = seconds


class ConflictError(GuestError):
    """Bytes in the guest are not what probekit expects. ``addr``, ``expected``, ``found``."""

    def __init__(self, message: str, *, addr: int, expected: bytes, found: bytes, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.addr = addr
        self.expected = expected
        self.found = found


class JournalError(ProbekitError):
    """The undo journal could not be written, read or trusted. ``path``: the file."""

    def __init__(self, message: str, *, path: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class InUseError(ProbekitError):
    """Another trace, or another thread, of this process uses this guest. Nothing was changed."""


class DetachedError(ProbekitError):
    """The guest was detached before. Nothing was changed."""


class BusyError(ProbekitError):
    """Another probekit holds this guest. ``pid``: its process, or 0 when unknown."""

    def __init__(self, message: str, *, pid: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pid = pid
