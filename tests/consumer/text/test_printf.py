"""printf against the C library, and what only DTrace has."""

from __future__ import annotations

import ctypes
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.formats import Conversion, Format
from probekit.consumer.events import GuestText, StackFrames, SymbolName, TraceInt, TraceString
from probekit.consumer.symbols import SymbolAt, Symbols
from probekit.consumer.text.printf import MAX_STAR, FormatContext, render

LIBC = ctypes.CDLL(None)


def conv(letter: str, *, flags: str = "", width: int | None = None, precision: int | None = None) -> Conversion:
    return Conversion(flags=flags, width=width, precision=precision, length="", letter=letter)


def show(conversion: Conversion, *arguments: TraceInt | TraceString, context: FormatContext | None = None) -> str:
    return render(Format("", (conversion,)), arguments, context or FormatContext(zone=UTC)).text


def c_printf(conversion: Conversion, value: int, bits: int) -> str:
    out = ctypes.create_string_buffer(400)
    width = "" if conversion.width is None else str(conversion.width)
    precision = "" if conversion.precision is None else f".{conversion.precision}"
    length = "ll" if bits == 64 else ""
    form = f"%{conversion.flags}{width}{precision}{length}{conversion.letter}"
    passed = ctypes.c_longlong(value) if bits == 64 else ctypes.c_int(value)
    LIBC.snprintf(out, ctypes.c_size_t(400), form.encode(), passed)
    return out.value.decode()


@given(
    letter=st.sampled_from("diouxX"),
    flags=st.lists(st.sampled_from("#0-+ "), unique=True).map("".join),
    width=st.none() | st.integers(1, 30),
    precision=st.none() | st.integers(1, 30),
    bits=st.sampled_from((32, 64)),
    data=st.data(),
)
def test_integers_as_the_c_library_prints_them(letter, flags, width, precision, bits, data):  # type: ignore[no-untyped-def]
    value = data.draw(st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
    conversion = conv(letter, flags=flags, width=width, precision=precision)
    assert show(conversion, TraceInt(value, bits)) == c_printf(conversion, value, bits)


@pytest.mark.parametrize(
    ("letter", "value", "bits", "signed", "expected"),
    [
        ("x", -1, 8, True, "ff"),
        ("x", -1, 16, True, "ffff"),
        ("x", -1, 32, True, "ffffffff"),
        ("x", -1, 64, True, "ffffffffffffffff"),
        ("X", -2, 16, True, "FFFE"),
        ("u", -1, 8, True, "255"),
        ("d", 200, 8, False, "200"),
        ("d", 0xFFFFFFFF, 32, False, "4294967295"),
        ("d", (1 << 64) - 1, 64, False, "18446744073709551615"),
        ("u", (1 << 64) - 1, 64, False, "18446744073709551615"),
        ("o", 8, 32, True, "10"),
        ("p", 0xFFFFFFFF81000000, 64, False, "ffffffff81000000"),
        ("i", -5, 64, True, "-5"),
    ],
)
def test_the_arguments_own_width_decides(letter: str, value: int, bits: int, signed: bool, expected: str) -> None:
    assert show(conv(letter), TraceInt(value, bits, signed)) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "0"), (999, "999"), (1000, "1,000"), (-1234567, "-1,234,567"), (12345, "12,345")]
)
def test_grouping(value: int, expected: str) -> None:
    assert show(conv("d", flags="'"), TraceInt(value)) == expected


@pytest.mark.parametrize(
    ("conversion", "text", "expected"),
    [
        (conv("s"), "bash", "bash"),
        (conv("s", width=8), "bash", "    bash"),
        (conv("s", width=8, flags="-"), "bash", "bash    "),
        (conv("s", precision=2), "bash", "ba"),
        (conv("s", width=5, precision=2), "bash", "   ba"),
        (conv("s", precision=0), "bash", "bash"),  # as DTrace: only above 0
        (conv("S"), 'a\tb"\\\x1b\xff', 'a\\tb\\"\\\\\\033\\303\\277'),
        (conv("d"), "not a number", "not a number"),
    ],
)
def test_strings(conversion: Conversion, text: str, expected: str) -> None:
    assert show(conversion, TraceString(text)) == expected


@pytest.mark.parametrize(
    ("letter", "value", "expected"),
    [("c", 65, "A"), ("c", 0x1FF, "\udcff"), ("C", 10, "\\n"), ("C", 65, "A"), ("C", 0xFF, "\\377"), ("C", 0, "\\0")],
)
def test_characters(letter: str, value: int, expected: str) -> None:
    assert show(conv(letter), TraceInt(value, 32)) == expected


def test_symbols() -> None:
    named = FormatContext(symbols=Symbols({0xFFFFFFFF81000010: SymbolAt("vmlinux", "start", 0x10)}.get))
    addr = TraceInt(0xFFFFFFFF81000010 - (1 << 64))
    assert show(conv("a"), addr, context=named) == "vmlinux`start+0x10"
    assert show(conv("a", width=20), addr, context=named) == "  vmlinux`start+0x10"
    assert show(conv("a"), TraceInt(0x10), context=named) == "0x10"
    assert show(conv("A"), addr) == "0xffffffff81000010"
    assert show(conv("s", width=8), SymbolName("f")) == "       f"


def test_stacks() -> None:
    frames = StackFrames(("a", "b"))
    assert show(conv("k"), frames) == "\n" + " " * 14 + "a\n" + " " * 14 + "b\n"
    assert show(conv("k", flags="-", width=2), frames) == "\n  a\n  b\n"


def test_dates() -> None:
    moment = TraceInt(1_123_686_252_000_000_000)
    assert show(conv("Y"), moment) == "2005 Aug 10 15:04:12"
    assert show(conv("T"), moment) == "Wed, 10 Aug 2005 15:04:12 UTC"
    assert show(conv("Y"), TraceInt((1 << 63) - 1, 64)).startswith("2262 ")
    assert show(conv("Y"), TraceInt((1 << 64) - 1, 64, signed=False)).startswith("2554 ")


def star(letter: str = "d", *, precision: bool = False) -> Conversion:
    return Conversion(
        flags="", width=None, precision=None, length="", letter=letter, star_width=True, star_precision=precision
    )


def test_star_widths() -> None:
    assert show(star(), TraceInt(6, 32), TraceInt(42)) == "    42"
    assert show(star(), TraceInt(-6, 32), TraceInt(42)) == "42    "
    assert show(star(precision=True), TraceInt(6, 32), TraceInt(4, 32), TraceInt(42)) == "  0042"
    assert show(star(precision=True), TraceInt(6, 32), TraceInt(-4, 32), TraceInt(42)) == "    42"
    assert show(star("s", precision=True), TraceInt(4, 32), TraceInt(2, 32), TraceString("abc")) == "  ab"


def test_a_hostile_star_is_bounded() -> None:
    assert len(show(star(), TraceInt((1 << 63) - 1), TraceInt(1))) == MAX_STAR
    assert show(star(), TraceString("x"), TraceInt(1)) == "1"


def test_user_text_and_guest_text_stay_apart() -> None:
    form = Format("", ("name\t", conv("s"), "|", conv("d"), conv("%"), "\n"))
    printed = render(form, [TraceString("\x1b[2J"), TraceInt(7)])
    assert printed.pieces == ("name\t", GuestText("\x1b[2J"), "|7%\n")
    assert printed.text == "name\t\x1b[2J|7%\n"


def test_arguments_that_do_not_fit_never_raise() -> None:
    form = Format("", (conv("d"), " ", conv("s"), conv("q")))
    assert render(form, []).text == "(missing) (missing)(missing)"
    assert render(form, [TraceInt(1), TraceInt(2), TraceInt(3), TraceInt(4)]).text == "1 23"


def test_an_empty_format_prints_nothing() -> None:
    assert render(Format("", ()), []).text == ""
