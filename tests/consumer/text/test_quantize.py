"""Histograms, to the column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.quantize import BUCKETS, Linear, LogLinear
from probekit.consumer.events import Histogram, Quantize, divide
from probekit.consumer.text.quantize import Bars, histogram_lines, shown_buckets
from tests.output.samples import quantized

HEADER = "           value  ------------- Distribution ------------- count    "


def test_one_value() -> None:
    assert list(histogram_lines(quantized(1))) == [
        HEADER,
        "               0 |                                         0        ",
        "               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@ 1        ",
        "               2 |                                         0        ",
    ]


def test_the_bars_share_forty_columns() -> None:
    assert list(histogram_lines(quantized(1, 2, 3))) == [
        HEADER,
        "               0 |                                         0        ",
        "               1 |@@@@@@@@@@@@@                            1        ",
        "               2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@              2        ",
        "               4 |                                         0        ",
    ]


def test_negative_values_and_zero() -> None:
    assert list(histogram_lines(quantized(-5, -1, 0, 0))) == [
        HEADER,
        "              -8 |                                         0        ",
        "              -4 |@@@@@@@@@@                               1        ",
        "              -2 |                                         0        ",
        "              -1 |@@@@@@@@@@                               1        ",
        "               0 |@@@@@@@@@@@@@@@@@@@@                     2        ",
        "               1 |                                         0        ",
    ]


def test_no_data_shows_the_buckets_about_zero() -> None:
    assert list(histogram_lines(quantized())) == [
        HEADER,
        "              -1 |                                         0        ",
        "               0 |                                         0        ",
        "               1 |                                         0        ",
    ]


def test_negative_counts_draw_to_the_left() -> None:
    assert list(histogram_lines(quantized(4, increment=-3))) == [
        HEADER,
        "               2                                         | 0        ",
        "               4 @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@| -3       ",
        "               8                                         | 0        ",
    ]


def test_both_signs_share_a_centre_line() -> None:
    buckets = [a + b for a, b in zip(quantized(4).buckets, quantized(1, increment=-1).buckets, strict=True)]
    assert list(histogram_lines(Quantize(tuple(buckets)))) == [
        HEADER,
        "               0                     |                     0        ",
        "               1           @@@@@@@@@@|                     -1       ",
        "               2                     |                     0        ",
        "               4                     |@@@@@@@@@@           1        ",
        "               8                     |                     0        ",
    ]


def test_the_ends_of_the_range_have_no_row_beyond() -> None:
    lines = list(histogram_lines(quantized(-(1 << 63), (1 << 63) - 1)))
    assert len(lines) == 1 + BUCKETS
    assert lines[1] == "-4611686018427387904 |@@@@@@@@@@@@@@@@@@@@                     1        "
    assert lines[-1] == "4611686018427387904 |@@@@@@@@@@@@@@@@@@@@                     1        "


def test_huge_counts_stay_exact() -> None:
    lines = list(histogram_lines(quantized(1, increment=(1 << 63) - 1)))
    assert lines[2] == "               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@ 9223372036854775807"


def test_a_share_of_half_a_column_rounds_up() -> None:
    buckets = [0] * BUCKETS
    buckets[63], buckets[64] = 79, 1
    lines = list(histogram_lines(Quantize(tuple(buckets))))
    assert lines[2] == "               0 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@ 79       "
    assert lines[3] == "               1 |@                                        1        "


def test_normalized_counts_keep_their_bars() -> None:
    lines = list(histogram_lines(quantized(1, increment=100), normal=30))
    assert lines[2] == "               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@ 3        "


@pytest.mark.parametrize(("value", "by", "expected"), [(7, 2, 3), (-7, 2, -3), (7, -2, -3), (0, 5, 0)])
def test_division_is_cs(value: int, by: int, expected: int) -> None:
    assert divide(value, by) == expected


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=BUCKETS, max_size=BUCKETS))
def test_every_bar_has_forty_one_columns(counts: list[int]) -> None:
    bars = Bars.of(counts)
    assert {len(bars.draw(count)) for count in counts} == {41}


@given(st.lists(st.integers(-2, 2), max_size=BUCKETS + 3).map(tuple))
def test_any_number_of_buckets_can_be_drawn(counts: tuple[int, ...]) -> None:
    lines = list(histogram_lines(Quantize(counts)))
    assert len(lines) == 1 + len(shown_buckets(Quantize((counts + (0,) * BUCKETS)[:BUCKETS])))


def test_linear_text() -> None:
    lines = list(histogram_lines(Histogram(Linear(0, 30, 10), (1, 0, 2, 0, 1))))
    assert lines == [
        "           value  ------------- Distribution ------------- count    ",
        "             < 0 |@@@@@@@@@@                               1        ",
        "               0 |                                         0        ",
        "              10 |@@@@@@@@@@@@@@@@@@@@                     2        ",
        "              20 |                                         0        ",
        "           >= 30 |@@@@@@@@@@                               1        ",
    ]
    assert len(list(histogram_lines(Histogram(Linear(0, 30, 10), (0,) * 5)))) == 4


def test_log_linear_text() -> None:
    scale = LogLinear(10, 0, 1, 10)
    counts = [0] * scale.buckets
    counts[scale.bucket_of(20)] = 1
    counts[scale.bucket_of(100)] = 3
    lines = list(histogram_lines(Histogram(scale, tuple(counts))))
    assert [line.partition("|")[0].strip() for line in lines[1:]] == [
        *("10", "20", "30", "40", "50", "60", "70", "80", "90", ">= 100")
    ]


def test_the_middle_of_a_log_linear_histogram_is_named_by_magnitude_only_with_data_up_to_it() -> None:
    scale = LogLinear(10, 2, 2, 2)

    def names(*values: int) -> list[str]:
        counts = [0] * scale.buckets
        for value in values:
            counts[scale.bucket_of(value)] += 1
        return [line.partition("|")[0].strip() for line in histogram_lines(Histogram(scale, tuple(counts)))][1:]

    assert names(100) == ["< 100", "100", "500"]
    assert names(7, 100) == ["-100", "abs() < 100", "100", "500"]
    assert names(-150) == ["-500", "-100", "abs() < 100"]
    assert names() == ["< 100", "100", "500"]


def test_zoom_draws_the_longest_bar_nearly_full() -> None:
    lines = list(histogram_lines(quantized(*[1] * 50, 2), zoom=True))
    assert [line.count("@") for line in lines[1:]] == [0, 38, 1, 0]
