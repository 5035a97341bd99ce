"""Formats read as printf reads them; markers out of memory, and a guest that lies about them."""

from __future__ import annotations

import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import display
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.marker_format import MarkerFormatError, argument_types
from probekit.kernel.markers import CALL_OFFSET, MAX_MARKERS, STATE_OFFSET, Marker, list_markers
from probekit.kernel.memory import KernelMemory
from probekit.kernel.modules import Module
from probekit.kernel.symbols import SymbolTable

from .fakes import BASE, BtfWriter, FakeMemory


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("", ""),
        ("no argument, 100%%", ""),
        ("turn %lu of %s", "unsigned long|char *"),
        ("%d%i%u%o%x%X", "int|int|unsigned int|unsigned int|unsigned int|unsigned int"),
        ("%hhd %hd %ld %lld", "signed char|short|long|long long"),
        ("%hhu %hu %lu %llu", "unsigned char|unsigned short|unsigned long|unsigned long long"),
        ("%zu %zd %tx %jd", "unsigned long|long|unsigned long|long"),
        ("%-08.3d|%+#x|% 5u", "int|unsigned int|unsigned int"),
        ("%c %-10.4s.", "char|char *"),
        ("%p at %pS: %pI4b", "void *|void *|void *"),
        ("%d" * 10, "|".join(["int"] * 10)),
    ],
)
def test_a_format_gives_the_types_of_its_arguments(text: str, types: str) -> None:
    assert "|".join(map(display, argument_types(text))) == types


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%", "middle of a conversion"),
        ("50% ", "middle of a conversion"),
        ("50% q", "not known"),
        ("%ll", "middle of a conversion"),
        ("%f", "%f"),
        ("%n", "%n"),
        ("%*d", "width as an argument"),
        ("%.*s", "width as an argument"),
        ("%ls", "%ls"),
        ("%hhp", "%hhp"),
        ("%lc", "%lc"),
        ("%d" * 11, "11 arguments"),
    ],
)
def test_formats_that_are_none(text: str, said: str) -> None:
    with pytest.raises(MarkerFormatError, match=said.replace("*", r"\*")):
        argument_types(text)


@given(st.text("%dslxhzp*.0 \0\n", max_size=40))
def test_any_format_has_types_or_is_refused(text: str) -> None:
    try:
        assert len(argument_types(text)) <= text.count("%")
    except MarkerFormatError as error:
        assert str(error).startswith("its format")


TEXT = BASE
DATA = BASE + 0x10000
STRINGS = BASE + 0x20000
MODULE = BASE + 0x30000
OFF, HERE = TEXT + 0x100, TEXT + 0x200


def _marker(name: int, text: int, *, call: int = OFF, flags: int = 1, state: int = 0, function: int = STRINGS) -> bytes:
    return struct.pack("<8sQQQQQII", b"pk-mark1", name, text, STRINGS, function, call, flags, state)


def _site(marker: int, load: int) -> bytes:
    return struct.pack("<8sQQ", b"pk\0site1", marker, load)


def _string(place: int) -> int:
    return STRINGS + 0x40 * place


NAMES = [b"fn", b"alpha", b"a %d", b"beta", b"", b"x" * 64, b"bad name", b"\x1b[2J", b"%Q"]
FN, ALPHA, FORMAT, BETA, EMPTY, ENDLESS, SPACED, CONTROL, UNKNOWN = map(_string, range(len(NAMES)))


def _guest(data: bytes, code: bytes = b"") -> KernelMemory:
    strings = bytearray(0x1000)
    for place, name in enumerate(NAMES):
        strings[0x40 * place : 0x40 * place + len(name)] = name
    strings[0x40 * 5 : 0x40 * 6] = b"x" * 64
    text = bytearray(0x1000)
    text[HERE - TEXT : HERE - TEXT + len(code)] = code
    return KernelMemory(
        FakeMemory(
            (TEXT, bytes(text)), (DATA, data.ljust(-(-len(data) // 4096) * 4096, b"\0")), (STRINGS, bytes(strings))
        )
    )


def _found(data: bytes, code: bytes = b"", *, areas: bool = True) -> tuple[Marker, ...]:
    """What is found in a module whose data these bytes are; ``areas``: as since v6.4, else as before."""
    w = BtfWriter()
    word, number = w.int("long unsigned int", 8, signed=False), w.int("int", 4)
    blob = bytearray(256)
    size = -(-len(data) // 4096) * 4096
    if areas:
        inner = w.struct("module_memory", 16, [("base", word, 0), ("size", number, 64)])
        w.struct("module", 256, [("mem", w.array(inner, 7), 0)])
        struct.pack_into("<QIxxxxQI", blob, 0, TEXT, 0x1000, DATA, size)
    else:
        inner = w.struct("module_layout", 24, [("base", word, 0), ("size", number, 64), ("text_size", number, 96)])
        w.struct("module", 256, [("core_layout", inner, 0)])
        struct.pack_into("<QII", blob, 0, TEXT, DATA + size - TEXT, DATA - TEXT)
    module = Module("mod", MODULE, "live", TEXT, TEXT + 0x1000, bytes(blob))
    symbols = SymbolTable(RawSymbols(array("Q", [BASE]), ["_text"], "T"))
    return list_markers(_guest(data, code), symbols, [module], Btf(w.data()), lambda a: TEXT <= a < TEXT + 0x1000)


@pytest.mark.parametrize("areas", [True, False])
def test_a_marker_and_its_places(areas: bool) -> None:
    data = bytes(8) + _marker(ALPHA, FORMAT, flags=0) + _site(DATA + 8, HERE) + _site(DATA + 8, HERE + 2)
    (found,) = _found(data, b"\xb0\x00\xb3\x00", areas=areas)
    assert (found.addr, found.name, found.function, found.module, found.owner) == (
        DATA + 8,
        "alpha",
        "fn",
        "mod",
        MODULE,
    )
    assert found.loads == ((HERE, b"\xb0\x00"), (HERE + 2, b"\xb3\x00")) and found.call == OFF
    assert [display(t) for t in found.types] == ["int"] and not found.generic and found.refusal == ""
    assert (CALL_OFFSET, STATE_OFFSET) == (40, 52)


@pytest.mark.parametrize(
    ("marker", "code", "said"),
    [
        (_marker(EMPTY, FORMAT), b"", "name"),
        (_marker(ENDLESS, FORMAT), b"", "name"),
        (_marker(SPACED, FORMAT), b"", "name"),
        (_marker(CONTROL, FORMAT), b"", "name"),
        (_marker(0x10, FORMAT), b"", "name"),
        (_marker((1 << 64) - 1, FORMAT), b"", "name"),
        (_marker(ALPHA, 0), b"", "format is unreadable"),
        (_marker(ALPHA, STRINGS + 0x1000), b"", "format is unreadable"),
        (_marker(ALPHA, UNKNOWN), b"", "%Q"),
        (_marker(ALPHA, FORMAT, call=0), b"", "not code"),
        (_marker(ALPHA, FORMAT, call=DATA), b"", "not code"),
        (_marker(ALPHA, FORMAT, flags=0x11), b"", "another version"),
        (_marker(ALPHA, FORMAT, state=1), b"", "already"),
        (_marker(ALPHA, FORMAT, flags=0), b"", "no place"),
        (_marker(ALPHA, FORMAT, flags=0) + _site(DATA, DATA), b"", "is not code"),
        (_marker(ALPHA, FORMAT, flags=0) + _site(DATA, HERE), b"\x90\x90", "not a load immediate"),
        (_marker(ALPHA, FORMAT, flags=0) + _site(DATA, HERE), b"\xb4\x00", "not a load immediate"),
        (_marker(ALPHA, FORMAT, flags=0) + _site(DATA, HERE), b"\xb0\x02", "not a load immediate"),
        (_marker(ALPHA, FORMAT, flags=0) + _site(DATA, HERE), b"\xb0\x01", "already"),
        (_marker(ALPHA, FORMAT, flags=0) + _site(DATA + 8, HERE), b"\xb0\x00", "no place"),
    ],
)
def test_what_cannot_be_used_is_there_with_its_reason(marker: bytes, code: bytes, said: str) -> None:
    good = _marker(BETA, FORMAT)
    first, second = _found(marker.ljust(0x200, b"\0") + good, code)
    assert said in first.refusal and first.loads == ()
    assert first.name == ("alpha" if "name" not in first.refusal else f"{DATA:#x}")
    assert (second.name, second.refusal) == ("beta", "")


def test_a_magic_word_that_is_cut_off_or_askew_is_no_marker() -> None:
    assert _found(bytes(4) + _marker(ALPHA, FORMAT)) == ()
    end = bytes(4096 - 48) + _marker(ALPHA, FORMAT)[:48]
    assert _found(end) == ()


def test_more_markers_than_a_kernel_can_have_are_refused() -> None:
    with pytest.raises(SymbolError, match="more than"):
        _found(_marker(ALPHA, FORMAT) * (MAX_MARKERS + 1))
    with pytest.raises(SymbolError, match="more than"):
        _found(_site(DATA, HERE) * ((1 << 16) + 1))


@given(st.binary(min_size=56, max_size=400))
def test_any_bytes_behind_the_magic(noise: bytes) -> None:
    for marker in _found(b"pk-mark1" + noise):
        assert marker.refusal and marker.name.isprintable() and marker.function.isprintable()
