"""Choose the kernel modules of a guest, and the order in which to load them.

A Debian kernel package has no ``modules.dep`` (depmod runs at installation), so
the order comes from each module's own ``.modinfo``: NUL-terminated strings such
as ``depends=dm-bufio,dm-mod``.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ("BOOT_MODULES", "SPARE_MODULES", "ModuleFile", "canonical", "load_order", "parse_depends", "read_modules")

# These are loaded at boot, so that the guest has module symbols. None needs hardware.
BOOT_MODULES = ("dummy", "loop", "lz4_compress", "null_blk")
# These are in /lib/modules of the guest but not loaded, for tests that load and unload modules.
SPARE_MODULES = ("veth", "crc_itu_t", "crc7", "brd", "overlay", "ts_kmp", "netdevsim", "zram")


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """The file of one kernel module."""

    name: str
    data: bytes
    """The uncompressed contents."""
    depends: tuple[str, ...]
    """The modules that it needs."""


def canonical(file_name: str) -> str:
    """Return the kernel's own name of a module: ``nf_nat`` for ``nf-nat.ko.xz``."""
    return file_name.split(".ko")[0].replace("-", "_")


def parse_depends(data: bytes) -> tuple[str, ...]:
    """Return the modules that a module file says it needs."""
    start = data.find(b"\0depends=")
    if start < 0:
        return ()
    start += len(b"\0depends=")
    text = data[start : data.index(b"\0", start)].decode("ascii")
    return tuple(canonical(name) for name in text.split(",") if name)


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def read_modules(tree: Path, names: Iterable[str]) -> dict[str, ModuleFile]:
    """Read the named modules below ``tree`` and all that they need. Names that do not exist are left out."""
    files = {canonical(path.name): path for path in tree.rglob("*.ko*")}
    found: dict[str, ModuleFile] = {}
    wanted = [canonical(name) for name in names]
    while wanted:
        name = wanted.pop()
        if name in found or name not in files:
            continue
        data = _read(files[name])
        found[name] = ModuleFile(name, data, parse_depends(data))
        wanted.extend(found[name].depends)
    return found


def load_order(depends: Mapping[str, tuple[str, ...]], names: Iterable[str]) -> tuple[str, ...]:
    """Return ``names`` and their dependencies, each after its own dependencies. Unknown names are left out."""
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in order or name not in depends or name in above:
            return
        for needed in depends[name]:
            visit(needed, (*above, name))
        order.append(name)

    for name in names:
        visit(canonical(name), ())
    return tuple(order)
