"""Check and install the commands and files that the host needs, each from a Debian package."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vm.errors import CommandFailedError, MissingPackagesError

__all__ = ("REQUIREMENTS", "Requirement", "apt", "busybox", "ensure", "missing_packages", "run")


_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One Debian package that is needed."""

    package: str
    why: str
    """Its purpose, as a verb phrase."""
    present: Callable[[], bool]
    """Returns whether the host has the needed command or file."""


def _command(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _static_libc() -> bool:
    return any(Path(p).exists() for p in ("/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib/libc.a", "/usr/lib64/libc.a"))


def busybox() -> Path | None:
    """Return the host's busybox if it is a static one, else None: it must run in a guest without libraries."""
    found = shutil.which("busybox")
    if found is None:
        return None
    with Path(found).open("rb") as stream:
        head = stream.read(4096)
    return None if b"ld-linux" in head else Path(found)


REQUIREMENTS = (
    Requirement("qemu-system-x86", "runs the guests", _command("qemu-system-x86_64")),
    Requirement("busybox-static", "is the guests' user space", lambda: busybox() is not None),
    Requirement("gcc", "builds the guests' init and workloads", _command("gcc")),
    Requirement("libc6-dev", "is linked into them", _static_libc),
    Requirement("dpkg", "unpacks kernel packages", _command("dpkg-deb")),
    Requirement("apt", "downloads kernel packages", _command("apt-get")),
)


def missing_packages() -> tuple[str, ...]:
    """Return the names of the Debian packages that are missing here."""
    return tuple(r.package for r in REQUIREMENTS if not r.present())


def ensure() -> None:
    """Install missing packages if we are root. Raises :class:`MissingPackagesError` otherwise."""
    missing = missing_packages()
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingPackagesError(missing)
    apt("apt-get", "install", "-y", "--no-install-recommends", *missing)
    still = missing_packages()
    if still:
        raise MissingPackagesError(still)


def apt(*argv: str, cwd: Path | None = None) -> str:
    """Run an apt command and return its output. As root, update missing or old package lists once and try again.

    Raises :class:`CommandFailedError`.
    """
    try:
        return run(argv, cwd=cwd, env=_QUIET)
    except CommandFailedError:
        if os.geteuid() != 0 or not _update_lists():
            raise
    return run(argv, cwd=cwd, env=_QUIET)


@cache
def _update_lists() -> bool:
    # The cache makes this run at most once in a process.
    run(("apt-get", "update"), env=_QUIET)
    return True


def run(argv: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a host command and return its standard output. Raises :class:`CommandFailedError`."""
    done = subprocess.run(
        argv, cwd=cwd, env={**os.environ, "LC_ALL": "C", **(env or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CommandFailedError(tuple(argv), status=done.returncode, output=done.stderr or done.stdout)
    return done.stdout
