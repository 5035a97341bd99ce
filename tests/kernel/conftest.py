"""Live kernels for these tests: one guest of each version, shared with the other live tests."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from probekit.kernel.kernel import Kernel
from probekit.kernel.open_kernel import open_kernel
from probekit.target.api import Target
from probekit.target.connect import connect
from vm.guest import Guest

Row = tuple[int, str, str, str]


@dataclass(frozen=True)
class Live:
    """A guest that was asked about itself first, then stopped and opened from outside."""

    guest: Guest
    target: Target
    kernel: Kernel
    rows: list[Row]
    """/proc/kallsyms: (address, type letter, name, module)."""


def kallsyms_rows(guest: Guest) -> list[Row]:
    rows = []
    packed = guest.check("gzip -c /proc/kallsyms | base64", timeout=120)
    for line in gzip.decompress(base64.b64decode(packed)).decode().splitlines():
        addr, letter, name, *module = line.split()
        rows.append((int(addr, 16), letter, name, module[0][1:-1] if module else ""))
    return rows


@pytest.fixture(scope="module")
def live(guest: Guest) -> Iterator[Live]:
    rows = kallsyms_rows(guest)
    target = connect(guest.gdb)
    try:
        yield Live(guest, target, open_kernel(target, cache=False), rows)
    finally:
        target.detach()


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "symbols"
    monkeypatch.setattr("probekit.kernel.disk_cache.cache_dir", lambda: folder)
    return folder
