"""The cache of kernels on disk: it follows the kernel in memory, and what is damaged is made anew."""

from __future__ import annotations

from array import array
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.kernel.disk_cache import CacheEntry, find_entry, store_entry
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.memory import KernelMemory
from probekit.kernel.open_kernel import open_kernel

from .fakes import BASE, FakeMemory, fake_kernel

BUILD_ID = bytes(range(20)).hex()


def test_the_cache_follows_kaslr(private_cache: Path) -> None:
    open_kernel(fake_kernel())
    slid = fake_kernel()
    step = 6 << 20
    slid.segments = {start + step if start == BASE else start: data for start, data in slid.segments.items()}
    slid.idt = 0
    warm = open_kernel(slid)
    assert warm.from_cache and warm.symbol("func_7") == BASE + step + 7 * 64


@pytest.mark.parametrize("at", [0, 5, 30, 60, 400, 5000, -1])
def test_a_damaged_cache_is_rebuilt(private_cache: Path, at: int) -> None:
    target = fake_kernel()
    open_kernel(target)
    (path,) = private_cache.iterdir()
    good = path.read_bytes()
    data = bytearray(good)
    data[at] ^= 0xFF
    for damaged in (bytes(data), good[: len(good) // 2], b""):
        path.write_bytes(damaged)
        kernel = open_kernel(target)
        assert not kernel.from_cache and kernel.symbol("func_7")
        assert path.read_bytes() == good


def test_the_cache_of_another_build_is_not_used(private_cache: Path) -> None:
    open_kernel(fake_kernel())
    other = fake_kernel(banner=b"Linux version 9.9.9-fake (x) #2 SMP\n")
    assert not open_kernel(other).from_cache


def test_an_unwritable_cache_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("probekit.kernel.disk_cache.cache_dir", lambda: tmp_path / "file" / "symbols")
    assert open_kernel(fake_kernel()).release == "9.9.9-fake"


_SYMBOLS = RawSymbols(array("Q", [0x1000, BASE, BASE + 64]), ["percpu", "_text", "f"], "dTt", "unsigned")
_WITNESS = b"a banner of this build"


def _entry(key: str = "ab" * 10, *, at: int = 0x100) -> CacheEntry:
    return CacheEntry(key, ((at, _WITNESS),), _SYMBOLS, b"", None)


def _memory(base: int = BASE, witness: bytes = _WITNESS) -> KernelMemory:
    return KernelMemory(FakeMemory((base, bytes(0x100) + witness + bytes(64))))


def test_an_entry_is_found_by_its_witnesses_and_moved_to_the_base(tmp_path: Path) -> None:
    assert store_entry(_entry(), BASE, tmp_path)
    moved = BASE + (6 << 20)
    found = find_entry(_memory(moved), moved, tmp_path)
    assert found is not None and found.key == "ab" * 10
    assert list(found.symbols.addrs) == [0x1000, moved, moved + 64], "an absolute value stays"
    assert (found.symbols.names, found.symbols.types, found.btf_index) == (_SYMBOLS.names, "dTt", None)
    assert find_entry(_memory(witness=b"a banner of another build"), BASE, tmp_path) is None
    assert find_entry(KernelMemory(FakeMemory()), BASE, tmp_path) is None


@pytest.mark.parametrize("key", ["", "short", "../../etc/passwd", "AB" * 10, "ab" * 200])
def test_a_key_that_is_no_build_id_names_no_file(key: str, tmp_path: Path) -> None:
    assert not store_entry(_entry(key), BASE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_the_latest_files_are_kept(tmp_path: Path) -> None:
    for number in range(20):
        assert store_entry(_entry(f"{number:020x}"), BASE, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{number:020x}.kernel" for number in range(4, 20)]


def test_a_link_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    store_entry(_entry(), BASE, tmp_path)
    (tmp_path / "cache" / "link.kernel").symlink_to(next(tmp_path.glob("*.kernel")))
    assert find_entry(_memory(), BASE, tmp_path / "cache") is None


@given(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=4))
def test_a_damaged_file_is_ignored_wherever_it_is_damaged(at: int, data: bytes) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        store_entry(_entry(), BASE, folder)
        (path,) = folder.iterdir()
        good = path.read_bytes()
        damaged = bytearray(good)
        damaged[at % len(good) : at % len(good) + len(data)] = data
        path.write_bytes(damaged)
        found = find_entry(_memory(), BASE, folder)
        assert found is None or bytes(damaged) == good
        path.write_bytes(good[: at % len(good)])
        assert find_entry(_memory(), BASE, folder) is None
