"""Build our own kernel modules (``vm/modules``) for a guest's kernel, against Debian's headers.

The header packages are downloaded and unpacked, never installed. A module is
cached under a hash of its sources and tools::

    headers/6.1.0-56-cloud-amd64/usr/src/linux-headers-…     unpacked packages, with adapted paths
    modules/1f2e….ko                                         without debug information
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vm.errors import MissingPackagesError, VmError
from vm.host import apt, run
from vm.kernels import FetchedKernel, download, parse_depends_output
from vm.paths import SOURCES, cache_dir, one_at_a_time, private_dir, write_atomic

__all__ = ("build", "headers", "names")

_SRC = "usr/src"
_COMPLETE = ".complete"
_LAYOUT = "2"  # raise it when the changes to the unpacked headers change


def names() -> tuple[str, ...]:
    """Return the names of the modules that can be built."""
    return tuple(sorted(path.stem for path in (SOURCES / "modules").glob("*.c")))


def _packages(release: str) -> tuple[str, ...]:
    """Return the packages of a kernel's headers, of the headers that flavours share, and of the build programs."""
    first = f"linux-headers-{release}"
    listed = parse_depends_output(apt("apt-cache", "depends", "--important", first))
    return (first, *(name for name in listed if name.startswith(("linux-headers-", "linux-kbuild-"))))


def headers(kernel: FetchedKernel, *, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Return the directory for ``make -C``, downloaded if it is not in the cache."""
    final = cache_dir("headers") / kernel.release
    tree = final / _SRC / f"linux-headers-{kernel.release}"
    complete = final / _COMPLETE
    with one_at_a_time(final):
        if not (complete.exists() and complete.read_text() == _LAYOUT):
            _unpack(kernel, final, tree.name, progress)
    return tree


def _unpack(kernel: FetchedKernel, final: Path, name: str, progress: Callable[[str], None]) -> None:
    packages = _packages(kernel.release)
    progress(f"{kernel.name}: downloading {', '.join(packages)}")
    with private_dir() as work:
        root = work / "root"
        for package in packages:
            run(("dpkg-deb", "-x", str(download(package, work)), str(root)))
        makefile = root / _SRC / name / "Makefile"
        makefile.write_text(makefile.read_text().replace("include /usr/src/", f"include {final / _SRC}/"))
        # If it exists, make also builds BTF for the modules, with a program that we do not require.
        (root / _SRC / name / "vmlinux").unlink(missing_ok=True)
        (root / _COMPLETE).write_text(_LAYOUT)
        if final.exists():
            shutil.rmtree(final)
        root.rename(final)


def _digest(name: str, kernel: FetchedKernel) -> str:
    digest = hashlib.sha256(repr((name, kernel.release, kernel.version, run(("gcc", "--version")), _LAYOUT)).encode())
    for path in (SOURCES / "modules" / f"{name}.c", *sorted((SOURCES / "include").rglob("*.h"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def build(name: str, kernel: FetchedKernel, *, progress: Callable[[str], None] = lambda _: None) -> bytes:
    """Return the bytes of a module, built if it is not in the cache. Raises :class:`VmError` when that fails."""
    if name not in names():
        raise VmError(f"there is no module {name!r}; there are: {', '.join(names())}")
    if shutil.which("make") is None:
        raise MissingPackagesError(("make",))
    cached = cache_dir("modules") / f"{_digest(name, kernel)}.ko"
    if not cached.exists():
        tree = headers(kernel, progress=progress)
        progress(f"{kernel.name}: building {name}")
        with private_dir() as work:
            shutil.copy(SOURCES / "modules" / f"{name}.c", work)
            (work / "Kbuild").write_text(f"obj-m := {name}.o\nccflags-y := -I{SOURCES / 'include'}\n")
            jobs = f"-j{os.cpu_count() or 1}"
            run(("make", "-s", jobs, "-C", str(tree), f"M={work}", "CC=gcc", "modules"))
            run(("strip", "--strip-debug", str(work / f"{name}.ko")))
            write_atomic(cached, (work / f"{name}.ko").read_bytes())
    return cached.read_bytes()
