"""``printa()`` with a format: which conversion takes which part of a row."""

from __future__ import annotations

from datetime import UTC

from probekit.buffers.aggs import AggFuncName
from probekit.buffers.formats import parse_format
from probekit.buffers.quantize import BUCKETS, bucket_of
from probekit.consumer.events import Average, GuestText, JoinedRow, KeyKind, Printed, Quantize, StdDev, Table
from probekit.consumer.text.printa import render_rows, scaled, shown_values
from probekit.consumer.text.printf import FormatContext

_STRING, _INT, _UINT = KeyKind("string"), KeyKind("int", 32), KeyKind("uint", 32)


def _printed(text: str, keys: tuple[KeyKind, ...], *rows: JoinedRow, funcs: tuple[AggFuncName, ...]) -> Printed:
    return render_rows(parse_format(text), Table(keys, rows, ("a",), funcs), FormatContext(zone=UTC))


def test_plain_conversions_take_the_key_and_at_signs_the_values() -> None:
    row = JoinedRow(("sh", -1), (3, 4), (1, 1))
    printed = _printed("%s %d %@d %@d\n", (_STRING, _INT), row, funcs=("count", "sum"))
    assert printed.text == "sh -1 3 4\n"


def test_each_row_is_one_copy_of_the_format() -> None:
    rows = (JoinedRow(("a",), (1,), (1,)), JoinedRow(("b",), (2,), (1,)))
    assert _printed("%s=%@d;", (_STRING,), *rows, funcs=("count",)).text == "a=1;b=2;"


def test_a_value_conversion_too_many_shows_the_last_value_again() -> None:
    assert _printed("%@d %@d", (), JoinedRow((), (3,), (1,)), funcs=("count",)).text == "3 3"


def test_a_star_takes_its_width_from_the_key() -> None:
    assert _printed("%@*d|", (_INT,), JoinedRow((5,), (3,), (1,)), funcs=("count",)).text == "    3|"


def test_an_unsigned_key_is_shown_without_a_sign() -> None:
    assert _printed("%u", (_UINT,), JoinedRow((0xFFFFFFFF,), (1,), (1,)), funcs=("count",)).text == "4294967295"


def test_a_histogram_is_shown_as_rows_of_its_own() -> None:
    buckets = [0] * BUCKETS
    buckets[bucket_of(4)] = 2
    text = _printed("%@d", (), JoinedRow((), (Quantize(tuple(buckets)),), (1,)), funcs=("quantize",)).text
    assert text.startswith("\n")
    assert any(line.split()[0] == "4" and line.split()[-1] == "2" for line in text.splitlines()[2:])


def test_text_of_the_guest_stays_marked_as_such() -> None:
    printed = _printed("<%s>", (_STRING,), JoinedRow(("\x1b[2J",), (1,), (1,)), funcs=("count",))
    assert printed.pieces == ("<", GuestText("\x1b[2J"), ">")


def test_neighbouring_pieces_of_many_rows_are_joined() -> None:
    rows = [JoinedRow((), (n,), (1,)) for n in range(100)]
    assert len(_printed("%@d ", (), *rows, funcs=("count",)).pieces) == 1


def test_a_value_is_divided_by_its_normal() -> None:
    assert scaled(7, 2) == 3
    assert scaled(Average(total=100, count=5), 2) == 10
    assert scaled(StdDev(count=2, total=0, squares=200), 1) == 10
    assert scaled(None, 1) == 0


def test_each_value_comes_with_its_own_normal() -> None:
    row = JoinedRow((), (3, None), (1, 10))
    assert list(shown_values(row, ("count", "sum"))) == [(3, 1), (None, 10)]
