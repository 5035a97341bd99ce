"""Opening a kernel, on a fake one: cold, from the cache, without data symbols, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.errors import SymbolError
from probekit.kernel.open_kernel import open_kernel

from .fakes import BASE, FakeTarget, fake_kernel

BUILD_ID = bytes(range(20)).hex()


def test_cold_then_cached(private_cache: Path) -> None:
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


def test_cache_follows_kaslr(private_cache: Path) -> None:
    open_kernel(fake_kernel())
    slid = fake_kernel()
    step = 6 << 20
    slid.segments = {start + step if start == BASE else start: data for start, data in slid.segments.items()}
    slid.idt = 0
    warm = open_kernel(slid)
    assert warm.from_cache and warm.symbol("func_7") == BASE + step + 7 * 64


@pytest.mark.parametrize("at", [0, 5, 30, 60, 400, 5000, -1])
def test_damaged_cache_is_rebuilt(private_cache: Path, at: int) -> None:
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


def test_cache_of_another_build_is_not_used(private_cache: Path) -> None:
    open_kernel(fake_kernel())
    other = fake_kernel(banner=b"Linux version 9.9.9-fake (x) #2 SMP\n")
    assert not open_kernel(other).from_cache


def test_unwritable_cache_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("probekit.kernel.disk_cache.cache_dir", lambda: tmp_path / "file" / "symbols")
    assert open_kernel(fake_kernel()).release == "9.9.9-fake"


def test_without_data_symbols(private_cache: Path) -> None:
    target = fake_kernel(data_symbols=False)
    for cached in (False, True):
        kernel = open_kernel(target)
        assert kernel.from_cache == cached
        assert kernel.release == "9.9.9-fake" and kernel.build_id == BUILD_ID
        assert kernel.btf is not None and kernel.btf.struct("thing").size == 8


def test_version_is_escaped() -> None:
    kernel = open_kernel(fake_kernel(banner=b"Linux version 9.9.9-fake \x1b[31m #1\n"), cache=False)
    assert "\x1b" not in kernel.version and "\\x1b[31m" in kernel.version


def test_refusals() -> None:
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


def test_symbol_files(tmp_path: Path) -> None:
    target = fake_kernel()
    rows = [(s.addr, s.type_char, s.name) for s in open_kernel(target, cache=False).symbols]
    path = tmp_path / "System.map"

    def write(slide: int = 0, skew: int = 0) -> None:
        path.write_text("".join(f"{a + slide + (skew if 'func' in n else 0):016x} {t} {n}\n" for a, t, n in rows))

    write(slide=-0x600000)
    kernel = open_kernel(target, symbols_file=path)
    assert [(s.addr, s.type_char, s.name) for s in kernel.symbols] == rows and kernel.build_id == BUILD_ID
    write(skew=9)
    with pytest.raises(SymbolError, match="look like functions"):
        open_kernel(target, symbols_file=path)
    for text, message in (
        ("0000000000000000 T _text\n0000000000000000 t x\n", "every address is zero"),
        ("hello world\n", "not 'address type name'"),
        ("", "holds no symbols"),
        ("ffffffff81000000 T other\n", "no _text"),
        ("\x7fELF nonsense", "damaged ELF"),
    ):
        path.write_text(text)
        with pytest.raises(SymbolError, match=message):
            open_kernel(target, symbols_file=path)
    with pytest.raises(SymbolError, match="No such file"):
        open_kernel(target, symbols_file=tmp_path / "absent")


def test_broken_types_leave_the_symbols() -> None:
    target = fake_kernel()
    data = next(iter(target.segments.values()))
    at = data.find(b"\x9f\xeb\x01\x00")
    data[at + 24 + 7] = 0x1E
    kernel = open_kernel(target, cache=False)
    assert kernel.btf is None and kernel.btf_error is not None and kernel.symbol("func_1")
