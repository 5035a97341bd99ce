"""Opening a kernel, on a fake one: cold, from the cache, without data symbols, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.errors import SymbolError
from probekit.kernel.open_kernel import open_kernel

from .fakes import BASE, FakeTarget, fake_kernel

BUILD_ID = bytes(range(20)).hex()


def test_a_kernel_is_read_once_and_then_comes_from_the_cache(private_cache: Path) -> None:
    target = fake_kernel()
    said: list[str] = []
    cold = open_kernel(target, progress=said.append)
    assert cold.base == BASE and cold.release == "9.9.9-fake" and cold.build_id == BUILD_ID
    assert cold.btf is not None and cold.btf.struct("thing").size == 8
    assert cold.symbol("func_7") == BASE + 7 * 64 and cold.find("nope", "func_8") == BASE + 8 * 64
    assert cold.text.start == BASE and cold.read_text("")[0].data[:3] == b"\x0f\x1f\x44"
    assert said and cold.module_error is not None and cold.modules == ()
    (path,) = private_cache.iterdir()
    assert path.name == f"{BUILD_ID}.kernel" and path.stat().st_mode & 0o77 == 0
    warm = open_kernel(target)
    assert warm.from_cache and warm.build_id == BUILD_ID and warm.version == cold.version
    assert list(warm.symbols) == list(cold.symbols)


def test_a_kernel_without_data_symbols_is_opened(private_cache: Path) -> None:
    target = fake_kernel(data_symbols=False)
    for cached in (False, True):
        kernel = open_kernel(target)
        assert kernel.from_cache == cached
        assert kernel.release == "9.9.9-fake" and kernel.build_id == BUILD_ID
        assert kernel.btf is not None and kernel.btf.struct("thing").size == 8


def test_a_version_of_any_bytes_is_escaped() -> None:
    kernel = open_kernel(fake_kernel(banner=b"Linux version 9.9.9-fake \x1b[31m #1\n"), cache=False)
    assert "\x1b" not in kernel.version and "\\x1b[31m" in kernel.version


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(SymbolError, match="firmware or boot loader"):
        open_kernel(FakeTarget(efer=0), cache=False)
    with pytest.raises(SymbolError, match="nothing is mapped"):
        open_kernel(FakeTarget(), cache=False)
    with pytest.raises(SymbolError, match="does not call itself Linux"):
        open_kernel(FakeTarget((BASE, bytes(2 << 20))), cache=False)
    elsewhere = fake_kernel()
    elsewhere.segments = {start + (64 << 20) if start == BASE else start: d for start, d in elsewhere.segments.items()}
    with pytest.raises(SymbolError, match="not a Linux kernel's layout"):
        open_kernel(elsewhere, cache=False)


def test_broken_types_leave_the_symbols() -> None:
    target = fake_kernel()
    data = next(iter(target.segments.values()))
    at = data.find(b"\x9f\xeb\x01\x00")
    data[at + 24 + 7] = 0x1E
    kernel = open_kernel(target, cache=False)
    assert kernel.btf is None and kernel.btf_error is not None and kernel.symbol("func_1")
