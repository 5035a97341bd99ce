"""Define the errors of this package, each with its details as attributes."""

from __future__ import annotations

from pathlib import Path

__all__ = (
    "ChannelError",
    "CommandFailedError",
    "ExecTimeoutError",
    "GuestExistsError",
    "GuestNotReadyError",
    "MissingPackagesError",
    "NoSuchGuestError",
    "UnknownKernelError",
    "VmError",
)


class VmError(Exception):
    """The base of every error that this package raises."""

    exit_code: int = 1
    """The exit status of ``python -m vm`` after this error."""


class MissingPackagesError(VmError):
    """Debian packages are missing on the host."""

    exit_code = 3

    def __init__(self, packages: tuple[str, ...]) -> None:
        names = " ".join(packages)
        super().__init__(f"this host lacks: {names}\nask an administrator for: apt-get install {names}")
        self.packages = packages
        """The names of the missing packages."""


class CommandFailedError(VmError):
    """A host command failed."""

    def __init__(self, argv: tuple[str, ...], *, status: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: exit status {status}\n{output.strip()}")
        self.argv = argv
        self.status = status
        self.output = output
        """Its standard error, or its standard output if that is empty."""


class UnknownKernelError(VmError):
    """A kernel is not in the matrix."""

    exit_code = 2

    def __init__(self, name: str, *, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown kernel {name!r}; known: {', '.join(known)}")
        self.name = name
        """The name that was asked for."""
        self.known = known
        """All names in the matrix."""


class GuestExistsError(VmError):
    """A guest of this name already runs."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a guest named {name!r} already exists; stop it with: python -m vm stop {name}")
        self.name = name


class NoSuchGuestError(VmError):
    """There is no guest of this name."""

    exit_code = 2

    def __init__(self, name: str) -> None:
        super().__init__(f"no guest named {name!r}; see: python -m vm list")
        self.name = name


class GuestNotReadyError(VmError):
    """The guest did not boot."""

    def __init__(self, name: str, reason: str, *, console: str) -> None:
        super().__init__(f"guest {name!r} {reason}\n--- end of its console and of QEMU's messages ---\n{console}")
        self.name = name
        self.reason = reason
        self.console = console
        """The end of its console log."""


class ChannelError(VmError):
    """The exec channel of a guest does not answer."""

    def __init__(self, message: str, *, socket: Path) -> None:
        super().__init__(f"{message} ({socket})")
        self.socket = socket
        """The path of the channel's socket."""


class ExecTimeoutError(VmError):
    """A command in a guest took too long and was killed."""

    exit_code = 124

    def __init__(self, command: str, *, seconds: float, output: str) -> None:
        super().__init__(f"no end after {seconds:g} s: {command}")
        self.command = command
        self.seconds = seconds
        """The time limit."""
        self.output = output
        """The command's output until then."""
