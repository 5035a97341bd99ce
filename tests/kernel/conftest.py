"""Live kernels for these tests: one guest of each version, shared with the other live tests."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from probekit.kernel.kernel import Kernel
from probekit.kernel.open_kernel import open_kernel
from probekit.kernel.symbols import KernelSymbol
from probekit.target.api import Target
from probekit.target.connect import connect
from vm.guest import Guest

Row = tuple[int, str, str, str]


@dataclass(frozen=True)
class Live:
    """A guest that was stopped and opened from outside, and asked about itself."""

    guest: Guest
    target: Target
    kernel: Kernel
    rows: list[Row]
    """/proc/kallsyms: (address, type letter, name, module)."""


def kallsyms_rows(guest: Guest, own: Sequence[KernelSymbol]) -> list[Row]:
    """Return /proc/kallsyms. The guest runs.

    ``own``: the kernel's own symbols, without modules, as they were found. If the guest has the same by its own hash,
    in the same order, they are not transferred: six megabytes take its serial port half a minute.
    """
    expected = [(s.addr, s.type_char, s.name, "") for s in own]
    text = "".join(f"{addr:016x} {letter} {name}\n" for addr, letter, name, _ in expected).encode()
    found = guest.check(f"head -c {len(text)} /proc/kallsyms | md5sum", timeout=120).split()[0]
    if found == hashlib.md5(text).hexdigest():
        return expected + _transferred(guest, f"tail -c +{len(text) + 1} /proc/kallsyms")
    return _transferred(guest, "cat /proc/kallsyms")


def _transferred(guest: Guest, command: str) -> list[Row]:
    rows = []
    packed = guest.check(f"{command} | gzip | base64", timeout=120)
    for line in gzip.decompress(base64.b64decode(packed)).decode().splitlines():
        addr, letter, name, *module = line.split()
        rows.append((int(addr, 16), letter, name, module[0][1:-1] if module else ""))
    return rows


@pytest.fixture(scope="module")
def live(guest: Guest) -> Iterator[Live]:
    target = connect(guest.gdb)
    try:
        kernel = open_kernel(target, cache=False)
        target.resume()
        rows = kallsyms_rows(guest, [symbol for symbol in kernel.symbols if not symbol.module])
        target.stop()
        yield Live(guest, target, kernel, rows)
    finally:
        target.detach()


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "symbols"
    monkeypatch.setattr("probekit.kernel.disk_cache.cache_dir", lambda: folder)
    return folder
