"""Symbols from a file: each form is read, and the file of another kernel is refused."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import SymbolError
from probekit.kernel.open_kernel import open_kernel
from probekit.kernel.symbol_files import load_symbol_file, parse_text, slide_to_base

from .fakes import BASE, fake_kernel

BUILD_ID = bytes(range(20)).hex()

BUILD_ID = bytes(range(20)).hex()


def test_a_saved_table_is_used_and_one_of_another_kernel_is_refused(tmp_path: Path) -> None:
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


_MAP = b"ffffffff81000000 T _text\nffffffff81000040 t f\n0000000000001000 d percpu\n"


def test_a_map_is_moved_to_the_live_base_and_absolute_values_stay() -> None:
    symbols = slide_to_base(parse_text(_MAP, "map"), BASE + (2 << 20), "map")
    assert list(symbols.addrs) == [0x1000, BASE + (2 << 20), BASE + (2 << 20) + 0x40]
    assert (symbols.names, symbols.types) == (["percpu", "_text", "f"], "dTt")


def test_symbols_of_modules_and_blank_lines_are_left_out() -> None:
    rows = parse_text(_MAP + b"\nffffffffc0000000 t in_module\t[module]\n", "map")
    assert [name for _, _, name in rows] == ["_text", "f", "percpu"]


def test_addresses_that_do_not_fit_are_refused() -> None:
    rows = parse_text(_MAP + b"fffffffffffffff0 T far\n", "map")
    with pytest.raises(SymbolError, match="do not fit"):
        slide_to_base(rows, BASE + (2 << 20), "map")


@given(st.one_of(st.binary(max_size=100), st.text("0123456789abcdef Tt_x\n", max_size=100).map(str.encode)))
def test_any_text_is_a_table_of_symbols_or_refused(data: bytes) -> None:
    try:
        rows = parse_text(data, "file")
        slide_to_base(rows, BASE, "file")
    except SymbolError:
        return
    assert all(len(letter) == 1 for _, letter, _ in rows)


@given(st.binary(max_size=200))
def test_a_damaged_elf_file_is_refused(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vmlinux"
        path.write_bytes(b"\x7fELF" + data)
        with pytest.raises(SymbolError):
            load_symbol_file(path, BASE)
