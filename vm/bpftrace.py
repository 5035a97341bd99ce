"""Make a second cpio archive of Debian's bpftrace and every library that it needs.

The packages are downloaded and unpacked, never installed. Of their files only
the program and the libraries that it (or one of them) names as ``NEEDED`` go into
the archive: about 200 MiB, most of it LLVM, so a guest wants 1.5 GiB of memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from vm import cpio
from vm.errors import VmError
from vm.host import apt, run
from vm.kernels import download, parse_depends_output
from vm.paths import cache_dir, private_dir, write_atomic

__all__ = ("archive", "needed_closure", "parse_needed")

# Part of the cache key: raise it when the contents of the archive change.
_LAYOUT = 1

_PROGRAM = "usr/bin/bpftrace"
_LOADER = "ld-linux-x86-64.so.2"
# The guest's ld.so searches this directory without any configuration.
_LIBRARY_DIR = "lib/x86_64-linux-gnu"
_NEEDED = re.compile(r"\(NEEDED\)\s+Shared library: \[([^\]]+)\]")
_SKIPPED_RELATIONS = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")


def parse_needed(text: str) -> tuple[str, ...]:
    """Return the library names in the output of ``readelf --dynamic``."""
    return tuple(_NEEDED.findall(text))


def needed_closure(first: tuple[str, ...], needs: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    """Return ``first`` and everything that they need, sorted."""
    found: dict[str, None] = {}
    wanted = list(first)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = None
            wanted.extend(needs(name))
    return tuple(sorted(found))


def _packages() -> tuple[str, ...]:
    """Return the packages of bpftrace and of all libraries that it needs, directly or not."""
    flags = (f"--no-{relation}" for relation in _SKIPPED_RELATIONS)
    text = apt("apt-cache", "depends", "--recurse", "--important", *flags, "bpftrace")
    libraries = {name for name in parse_depends_output(text) if name.startswith(("lib", "zlib"))}
    # Virtual packages are shown as <name>; :i386 and the like belong to other architectures.
    return ("bpftrace", *sorted(name for name in libraries if ":" not in name))


def _libraries(root: Path) -> Mapping[str, Path]:
    """Return every shared library below ``root`` by name; several names may be one file."""
    return {path.name: path for path in sorted(root.rglob("*.so*")) if path.is_file()}


def _entries(root: Path) -> tuple[cpio.Entry, ...]:
    libraries = _libraries(root)

    def needs(name: str) -> tuple[str, ...]:
        path = root / _PROGRAM if name == _PROGRAM else libraries.get(name)
        if path is None:
            raise VmError(f"no package of bpftrace's dependencies has the library {name}")
        return parse_needed(run(("readelf", "--dynamic", "--wide", str(path))))

    names = [name for name in needed_closure((_PROGRAM, _LOADER), needs) if name not in (_PROGRAM, _LOADER)]
    return (
        *(cpio.directory(name) for name in ("lib64", _LIBRARY_DIR)),
        cpio.regular(_PROGRAM, (root / _PROGRAM).read_bytes(), mode=0o755),
        cpio.regular(f"lib64/{_LOADER}", libraries[_LOADER].read_bytes(), mode=0o755),
        *(cpio.regular(f"{_LIBRARY_DIR}/{name}", libraries[name].read_bytes(), mode=0o755) for name in names),
    )


def archive(*, refresh: bool = False, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Return the path of the archive, built if it is not in the cache or with ``refresh``."""
    path = cache_dir("bpftrace") / f"layout{_LAYOUT}.cpio"
    if refresh or not path.exists():
        packages = _packages()
        progress(f"bpftrace: downloading {len(packages)} packages")
        with private_dir() as work:
            root = work / "root"
            for package in packages:
                run(("dpkg-deb", "-x", str(download(package, work)), str(root)))
            write_atomic(path, cpio.archive(_entries(root)))
    return path
