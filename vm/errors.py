"""Errors of the guest launcher, each with the facts as fields."""

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
    """Base of every error that the launcher raises on purpose."""

    exit_code: int = 1


class MissingPackagesError(VmError):
    """The host lacks Debian packages. ``packages``: their names."""

    exit_code = 3

    def __init__(self, packages: tuple[str, ...]) -> None:
        names = " ".join(packages)
        super().__init__(f"this host lacks: {names}\nask an administrator for: apt-get install {names}")
        self.packages = packages


class CommandFailedError(VmError):
    """A host command failed. ``argv``, ``status`` and its error ``output``."""

    def __init__(self, argv: tuple[str, ...], *, status: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: exit status {status}\n{output.strip()}")
        self.argv = argv
        self.status = status
        self.output = output


class UnknownKernelError(VmError):
    """``name`` is not in the kernel matrix. ``known``: what is."""

    exit_code = 2

    def __init__(self, name: str, *, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown kernel {name!r}; known: {', '.join(known)}")
        self.name = name
        self.known = known


class GuestExistsError(VmError):
    """A guest called ``name`` already runs."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a guest named {name!r} already exists; stop it with: python -m vm stop {name}")
        self.name = name


class NoSuchGuestError(VmError):
    """No guest is called ``name``."""

    exit_code = 2

    def __init__(self, name: str) -> None:
        super().__init__(f"no guest named {name!r}; see: python -m vm list")
        self.name = name


class GuestNotReadyError(VmError):
    """The guest did not come up. ``console``: the end of its log."""

    def __init__(self, name: str, reason: str, *, console: str) -> None:
        super().__init__(f"guest {name!r} {reason}\n--- end of its console and of QEMU's messages ---\n{console}")
        self.name = name
        self.reason = reason
        self.console = console


class ChannelError(VmError):
    """The exec channel of a guest does not answer. ``socket``: its path."""

    def __init__(self, message: str, *, socket: Path) -> None:
        super().__init__(f"{message} ({socket})")
        self.socket = socket


class ExecTimeoutError(VmError):
    """A command in a guest took too long and was killed. ``output``: what it had written."""

    exit_code = 124

    def __init__(self, command: str, *, seconds: float, output: str) -> None:
        super().__init__(f"no end after {seconds:g} s: {command}")
        self.command = command
        self.seconds = seconds
        self.output = output
