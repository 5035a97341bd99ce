"""Make a guest's whole root file system, as one cpio archive in the cache.

The archive is not compressed: under TCG the guest would take longer to decompress it
than QEMU takes to load it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from vm import bpftrace, build, cpio
from vm.errors import MissingPackagesError
from vm.host import busybox, run
from vm.kernels import FetchedKernel
from vm.paths import cache_dir, write_atomic

__all__ = ("image",)

_DIRECTORIES = (
    *("bin", "sbin", "dev", "etc", "lib", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "usr/sbin"),
    *("lib/modules", "workloads", "mnt", "var", "var/tmp"),
)
_KEPT_IMAGES = 12
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost guest\n",
}


def _busybox_entries() -> tuple[cpio.Entry, ...]:
    program = busybox()
    if program is None:
        raise MissingPackagesError(("busybox-static",))
    applets = run((str(program), "--list-full")).split()
    links = (cpio.symlink(path, "/bin/busybox") for path in applets if path != "bin/busybox")
    usable = (link for link in links if Path(link.name).parent.as_posix() in _DIRECTORIES)
    return (cpio.regular("bin/busybox", program.read_bytes(), mode=0o755), *usable)


def _module_entries(kernel: FetchedKernel) -> tuple[cpio.Entry, ...]:
    folder = kernel.directory / "modules"
    files = (cpio.regular(f"lib/modules/{n}.ko", (folder / f"{n}.ko").read_bytes()) for n in kernel.modules)
    wanted = "".join(f"/lib/modules/{name}.ko\n" for name in kernel.boot_modules)
    return (cpio.regular("etc/modules", wanted.encode()), *files)


def _base(kernel: FetchedKernel) -> bytes:
    programs = (cpio.regular(f"workloads/{name}", data, mode=0o755) for name, data in build.workloads().items())
    texts = (cpio.regular(name, text.encode()) for name, text in _FILES.items())
    return cpio.archive(
        (
            *(cpio.directory(name) for name in _DIRECTORIES),
            # init's standard streams, before devtmpfs is mounted over it.
            cpio.char_device("dev/console", 5, 1),
            cpio.regular("init", build.init(), mode=0o755),
            *_busybox_entries(),
            *programs,
            *_module_entries(kernel),
            *texts,
        )
    )


def image(
    kernel: FetchedKernel, *, with_bpftrace: bool = False, progress: Callable[[str], None] = lambda _: None
) -> Path:
    """Return the path of the archive for this kernel, built if it is not in the cache."""
    base = _base(kernel)
    digest = hashlib.sha256(base)
    extra = bpftrace.archive(progress=progress) if with_bpftrace else None
    if extra is not None:
        # This file never changes, and to hash its 200 MiB at every start would take longer than booting.
        facts = extra.stat()
        digest.update(f"{extra.name} {facts.st_size} {facts.st_mtime_ns}".encode())
    path = cache_dir("initramfs") / f"{digest.hexdigest()[:32]}.cpio"
    if not path.exists():
        write_atomic(path, base + (extra.read_bytes() if extra is not None else b""))
        _prune(path)
    path.touch()
    return path


def _prune(newest: Path) -> None:
    """Delete the least recently used images; a guest that runs has its own copy already."""
    by_use = sorted(newest.parent.glob("*.cpio"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_use[_KEPT_IMAGES:]:
        path.unlink(missing_ok=True)
