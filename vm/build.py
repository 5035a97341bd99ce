"""Compile C sources to static binaries, and cache them under a hash of their sources, flags and compiler.

A binary's name in the cache is the hash of the compiler's version, the flags and
all sources, so an unchanged one is never built twice and a changed one always is.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from vm.host import run
from vm.paths import SOURCES, cache_dir, write_atomic

__all__ = ("init", "static_binary", "workloads")

_FLAGS = ("-O2", "-static", "-s", "-std=gnu11", "-Wall", "-Wextra", "-pthread")
# An i386 program: Debian's compiler makes one without further packages, as long as it needs no library.
_FREESTANDING = (
    *("-O2", "-static", "-s", "-std=gnu11", "-Wall", "-Wextra", "-m32", "-nostdlib", "-ffreestanding"),
    *("-fno-pie", "-no-pie", "-fno-stack-protector", "-fno-builtin"),
)
_OWN_FLAGS = {"compat32": _FREESTANDING}


@cache
def _compiler() -> str:
    return run(("gcc", "--version")).splitlines()[0]


def static_binary(
    sources: tuple[Path, ...], *, headers: tuple[Path, ...] = (), flags: tuple[str, ...] = _FLAGS
) -> bytes:
    """Compile and link, and return the ELF file. Raises :class:`vm.errors.CommandFailedError`."""
    digest = hashlib.sha256(repr((_compiler(), flags)).encode())
    for path in (*sources, *headers):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    binaries = cache_dir("bin")
    cached = binaries / digest.hexdigest()[:32]
    if not cached.exists():
        made = binaries / f".{cached.name}.{id(digest):x}"
        try:
            run(("gcc", *flags, "-o", str(made), *map(str, sources)))
            write_atomic(cached, made.read_bytes(), mode=0o755)
        finally:
            made.unlink(missing_ok=True)
    return cached.read_bytes()


def init() -> bytes:
    """Return the binary of PID 1, which contains the exec agent."""
    folder = SOURCES / "rootfs"
    return static_binary(tuple(sorted(folder.glob("*.c"))), headers=tuple(sorted(folder.glob("*.h"))))


def workloads() -> dict[str, bytes]:
    """Return the binary of every program of ``vm/workloads``, by name."""
    sources = sorted((SOURCES / "workloads").glob("*.c"))
    return {path.stem: static_binary((path,), flags=_OWN_FLAGS.get(path.stem, _FLAGS)) for path in sources}
