"""Define the kernel matrix, and turn a Debian kernel package into a directory in the cache.

To add a kernel, add a row to :data:`KERNELS`. The package named there may be a
metapackage: its ``Depends`` are followed to the concrete ``linux-image-*``,
which is downloaded and unpacked, never installed. The result::

    kernels/6.1-cloud/vmlinuz
    kernels/6.1-cloud/config
    kernels/6.1-cloud/modules/dummy.ko        uncompressed, only those of vm.module_order
    kernels/6.1-cloud/kernel.json             written last: the directory is complete
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from vm.errors import UnknownKernelError, VmError
from vm.host import apt, run
from vm.module_order import BOOT_MODULES, SPARE_MODULES, load_order, read_modules
from vm.paths import cache_dir, one_at_a_time, private_dir, write_atomic

__all__ = ("KERNELS", "FetchedKernel", "KernelSpec", "concrete_package", "fetch", "parse_depends_output", "spec")

# Part of the cache key: raise it when the layout of a kernel's directory changes.
_LAYOUT = 1


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """One row of the matrix."""

    name: str
    series: str
    """The beginning of the kernel's release."""
    package: str
    """The Debian package, often a metapackage."""
    what: str
    """A short description for ``python -m vm kernels``."""


KERNELS = (
    KernelSpec("6.1-cloud", "6.1.", "linux-image-cloud-amd64", "Debian 12's kernel for clouds"),
    KernelSpec(
        "6.12-cloud", "6.12.", "linux-image-6.12-cloud-amd64", "Debian 13's kernel for clouds, rebuilt for Debian 12"
    ),
    KernelSpec("6.1-amd64", "6.1.", "linux-image-amd64", "Debian 12's kernel for any PC"),
    KernelSpec("6.12-amd64", "6.12.", "linux-image-6.12-amd64", "Debian 13's kernel for any PC, rebuilt for Debian 12"),
    KernelSpec("6.12-rt", "6.12.", "linux-image-6.12-rt-amd64", "Debian 13's with PREEMPT_RT, rebuilt for Debian 12"),
    KernelSpec("6.1-rt", "6.1.", "linux-image-rt-amd64", "Debian 12's with PREEMPT_RT"),
)


@dataclass(frozen=True, slots=True)
class FetchedKernel:
    """A kernel in the cache."""

    name: str
    """The name of its row in the matrix."""
    release: str
    """The output of ``uname -r``, such as ``6.1.0-56-cloud-amd64``."""
    package: str
    """The concrete package."""
    version: str
    """The version of the package."""
    directory: Path
    modules: tuple[str, ...]
    """Names of the module files, in load order."""
    boot_modules: tuple[str, ...]
    """Names of the modules that are loaded at boot."""

    @property
    def image(self) -> Path:
        """The bzImage."""
        return self.directory / "vmlinuz"


def spec(name: str) -> KernelSpec:
    """Return the row called ``name``. Raises :class:`UnknownKernelError`."""
    for row in KERNELS:
        if row.name == name:
            return row
    raise UnknownKernelError(name, known=tuple(row.name for row in KERNELS))


_DEPENDS = re.compile(r"^\s*\|?(?:Pre)?Depends:\s+(\S+)", re.MULTILINE)
# linux-image-6.1.0-56-cloud-amd64: a digit follows, and the kernel's own release is the rest.
_IMAGE = re.compile(r"^linux-image-(\d+\.\d+\.\d+\S*)$")


def parse_depends_output(text: str) -> tuple[str, ...]:
    """Return the package names in the output of ``apt-cache depends``."""
    return tuple(_DEPENDS.findall(text))


def concrete_package(package: str) -> str:
    """Follow metapackages to the package that holds a kernel. Raises :class:`VmError` when there is none."""
    for _ in range(4):
        if _IMAGE.match(package):
            return package
        listed = parse_depends_output(apt("apt-cache", "depends", "--important", package))
        images = [name for name in listed if name.startswith("linux-image-")]
        if not images:
            break
        package = images[0]
    if _IMAGE.match(package):
        return package
    raise VmError(f"apt knows no kernel image for the package {package}; is `apt-get update` needed?")


def download(package: str, directory: Path) -> Path:
    """Download one package into ``directory`` and return the file."""
    # As root, apt would drop to the user _apt, who may not write into our private directory.
    sandbox = ("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()
    before = set(directory.glob("*.deb"))
    apt("apt-get", "download", *sandbox, package, cwd=directory)
    (file,) = set(directory.glob("*.deb")) - before
    return file


def _load(directory: Path) -> FetchedKernel | None:
    try:
        data = json.loads((directory / "kernel.json").read_text())
    except FileNotFoundError:
        return None
    if data.pop("layout") != _LAYOUT:
        return None
    modules, boot_modules = (tuple(data.pop(key)) for key in ("modules", "boot_modules"))
    return FetchedKernel(**data, modules=modules, boot_modules=boot_modules, directory=directory)


def _unpack(row: KernelSpec, package: str, work: Path) -> FetchedKernel:
    """Turn the package into a kernel directory at ``work / "kernel"``."""
    file = download(package, work)
    version = run(("dpkg-deb", "-f", str(file), "Version")).strip()
    root = work / "root"
    run(("dpkg-deb", "-x", str(file), str(root)))
    (image,) = (root / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    target = work / "kernel"
    (target / "modules").mkdir(parents=True)
    image.rename(target / "vmlinuz")
    (root / "boot" / f"config-{release}").rename(target / "config")
    # Debian 12's System.map is a stub of one line; a real one is worth keeping.
    system_map = root / "boot" / f"System.map-{release}"
    if system_map.exists() and system_map.stat().st_size > 10_000:
        system_map.rename(target / "System.map")
    found = read_modules(root, (*BOOT_MODULES, *SPARE_MODULES))
    for module in found.values():
        (target / "modules" / f"{module.name}.ko").write_bytes(module.data)
    depends = {name: module.depends for name, module in found.items()}
    return FetchedKernel(
        name=row.name,
        release=release,
        package=package,
        version=version,
        directory=target,
        modules=load_order(depends, sorted(found)),
        boot_modules=load_order(depends, BOOT_MODULES),
    )


def fetch(name: str, *, refresh: bool = False, progress: Callable[[str], None] = lambda _: None) -> FetchedKernel:
    """Return the kernel called ``name``, downloaded if it is not in the cache.

    ``refresh``: download it also if there is a newer one. Raises :class:`VmError`.
    """
    row = spec(name)
    final = cache_dir("kernels") / row.name
    cached = _load(final)
    if cached is not None and not refresh:
        return cached
    with one_at_a_time(final):
        cached = _load(final)
        if cached is not None and not refresh:
            return cached  # another process was quicker
        package = concrete_package(row.package)
        if cached is not None and cached.package == package:
            return cached
        if not package.startswith(f"linux-image-{row.series}"):
            # On another Debian release the metapackage leads to another kernel.
            raise VmError(
                f"{row.package} is {package} here, not a {row.series}* kernel; give it a new row in vm.kernels"
            )
        progress(f"{row.name}: downloading {package}")
        with private_dir() as work:
            kernel = _unpack(row, package, work)
            data = {"layout": _LAYOUT, **asdict(kernel)}
            del data["directory"]
            write_atomic(kernel.directory / "kernel.json", json.dumps(data, indent=1).encode())
            if final.exists():
                shutil.rmtree(final)
            kernel.directory.rename(final)
    fetched = _load(final)
    if fetched is None:
        raise VmError(f"{final} was just written and is not complete")
    return fetched
