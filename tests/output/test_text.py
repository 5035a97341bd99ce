"""dtrace(1)'s text, to the column."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.consumer.events import (
    Aggregation,
    Attached,
    Average,
    Drop,
    Event,
    ExitRequested,
    Fault,
    Flow,
    GuestText,
    KeyKind,
    Message,
    Printed,
    ProbeFired,
    ProbeIdentity,
    RecordItem,
    Row,
    TraceInt,
    TraceString,
)
from probekit.output.api import TextStyle
from probekit.output.text import TextRenderer, aggregation_text
from probekit.probe.names import ProbeName

from .samples import BEGIN, READ, fired, quantized, written

HEADER = "CPU     ID                    FUNCTION:NAME\n"
BEGIN_LINE = "  0      1                           :BEGIN "
QUIET = TextStyle(quiet=True)
STRING, INT, INT32 = KeyKind("string"), KeyKind("int"), KeyKind("int", 32)


@pytest.mark.parametrize(
    ("item", "loud", "quiet"),
    [
        (TraceInt(5, 64), "                5", "5"),
        (TraceInt(-5, 32), "       -5", "-5"),
        (TraceInt(65535, 16, False), " 65535", "65535"),
        (TraceInt(7, 8), "   7", "7"),
        (TraceInt((1 << 64) - 1, 64, False), "               -1", "-1"),
        (TraceInt(-1, 8), " 255", "255"),
        (TraceString("bash"), "  bash                             ", "bash"),
        (TraceString("a string that is longer than its column"), "  a string that is longer than its column", None),
        (TraceString(""), "                                   ", ""),
        (Printed(("hello\n",)), "hello\n", "hello\n"),
        (Printed(()), "", ""),
    ],
)
def test_items(item: RecordItem, loud: str, quiet: str | None) -> None:
    assert written(fired(item)) == (HEADER + BEGIN_LINE + loud + "\n", "")
    if quiet is not None:
        assert written(fired(item), style=QUIET) == (quiet, "")


def test_a_bare_probe_is_a_line() -> None:
    assert written(fired(), fired(probe=READ, cpu=12))[0] == (
        HEADER + "  0      1                           :BEGIN \n" + " 12  51234                   vfs_read:entry \n"
    )
    assert written(fired(), style=QUIET)[0] == ""


def test_several_items_share_a_line() -> None:
    text = written(fired(TraceInt(1, 32), TraceString("x"), Printed(("y",))))[0]
    assert text == HEADER + BEGIN_LINE + "        1  " + "x".ljust(33) + "y\n"


def test_long_names_push_the_line_out() -> None:
    name = ProbeName("fbt", "vmlinux", "a_function_with_a_very_long_name", "return")
    text = written(fired(TraceInt(1, 32), probe=ProbeIdentity(1234567, name)))[0]
    assert text == HEADER + "  0 1234567 a_function_with_a_very_long_name:return         1\n"


def test_the_header_waits_for_the_first_record() -> None:
    assert written(ExitRequested(0))[0] == ""


def test_flow() -> None:
    flow = TextStyle(flow=True)

    def step(name: str, indent: int, prefix: str, named: bool = False, *items: RecordItem) -> ProbeFired:
        probe = ProbeIdentity(1, ProbeName("fbt", "vmlinux", name, "entry"))
        return ProbeFired(
            cpu=0, probe=probe, clause=0, timestamp=0, items=items, flow=Flow(indent=indent, prefix=prefix, named=named)
        )

    text = written(
        step("ioctl", 0, " => "),
        step("fget", 2, " -> "),
        step("fget", 4, "| ", True, TraceInt(3, 32)),
        step("fget", 2, " <- "),
        style=flow,
    )[0]
    assert text.splitlines() == [
        "CPU FUNCTION                                 ",
        "  0  => ioctl                                 ",
        "  0    -> fget                                ",
        "  0     | fget:entry                                  3",
        "  0    <- fget                                ",
    ]


def test_messages_go_to_the_other_stream_under_our_name() -> None:
    events: list[Event] = [
        Attached("description 'BEGIN'", 1),
        Attached("script 'x.d'", 12),
        Drop("principal", 0, 12, 12),
        Fault(READ, 1, value=16, clause="clause 1", where="line 2"),
        Message("the guest is gone"),
        ExitRequested(3),
    ]
    assert written(*events) == (
        "",
        "probekit: description 'BEGIN' matched 1 probe\n"
        "probekit: script 'x.d' matched 12 probes\n"
        "probekit: 12 drops on CPU 0\n"
        "probekit: error in clause 1 for probe ID 51234 (fbt:vmlinux:vfs_read:entry): "
        "invalid address (0x10) at line 2\n"
        "probekit: the guest is gone\n",
    )
    assert written(events[0], events[2], style=QUIET) == ("", "probekit: 12 drops on CPU 0\n")


def test_probes_that_are_not_available_are_told_with_quiet_too() -> None:
    for style in (TextStyle(), QUIET):
        assert written(Attached("description 'fbt:::entry'", 30, refused=2), style=style) == (
            "",
            "probekit: description 'fbt:::entry' matched 30 probes, 2 not available (-l -v says why)\n",
        )


def agg(kinds: tuple[KeyKind, ...], *rows: Row, normal: int = 1) -> Aggregation:
    scaled = tuple(Row(row.key, row.value, normal) for row in rows)
    return Aggregation(name="a", func="sum", keys=kinds, rows=scaled)


def test_no_key() -> None:
    assert aggregation_text(agg((), Row((), 42)), TextStyle()) == "               42\n"


def test_keys_and_values_in_columns() -> None:
    assert aggregation_text(agg((STRING,), Row(("init",), 1), Row(("bash",), 20)), TextStyle()) == (
        "  init                                                              1\n"
        "  bash                                                             20\n"
    )
    assert aggregation_text(agg((INT,), Row((-3,), 1)), TextStyle()) == "               -3                1\n"
    assert aggregation_text(agg((INT32,), Row((17,), 1)), TextStyle()) == "       17                1\n"


def test_many_keys() -> None:
    kinds = (STRING, INT32, INT, KeyKind("uint", 8), KeyKind("uint", 16))
    text = aggregation_text(agg(kinds, Row(("k", 1, 2, 3, 4), -5)), TextStyle())
    assert text == "  " + "k".ljust(50) + "        1" + "                2" + "   3" + "     4" + "               -5\n"


def test_a_long_key_pushes_its_row_out() -> None:
    key = "k" * 60
    assert aggregation_text(agg((STRING,), Row((key,), 5)), TextStyle()) == f"  {key}                5\n"


def test_averages_and_normalized_values() -> None:
    assert aggregation_text(agg((), Row((), Average(-7, 2))), TextStyle()) == "               -3\n"
    assert aggregation_text(agg((), Row((), Average(0, 0))), TextStyle()) == "                0\n"
    assert aggregation_text(agg((), Row((), Average(70, 2)), normal=10), TextStyle()) == "                3\n"
    assert aggregation_text(agg((), Row((), -70), normal=8), TextStyle()) == "               -8\n"


def test_a_quantize_stands_below_its_key() -> None:
    text = aggregation_text(agg((STRING,), Row(("sshd",), quantized(1))), TextStyle())
    assert text == (
        "  sshd                                              \n"
        "           value  ------------- Distribution ------------- count    \n"
        "               0 |                                         0        \n"
        "               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@ 1        \n"
        "               2 |                                         0        \n"
        "\n"
    )


def test_a_quantize_without_a_key_starts_with_an_empty_line() -> None:
    assert aggregation_text(agg((), Row((), quantized(1))), TextStyle()).startswith("\n           value")


def finished(*aggregations: Aggregation) -> str:
    out = io.StringIO()
    TextRenderer(out, io.StringIO(), QUIET).aggregations(aggregations)
    return out.getvalue()


def test_the_end_is_a_blank_line_and_what_is_left() -> None:
    assert finished() == "\n"
    assert finished(agg(())) == "\n"
    assert finished(agg((), Row((), 1)), agg((), Row((), 2))) == "\n                1\n                2\n"


def test_printa_is_the_same_text() -> None:
    assert written(agg((), Row((), 1)))[0] == "\n                1\n"


def test_guest_text_is_escaped_and_the_users_is_not() -> None:
    hostile = "\x1b]0;pwned\x07\n"
    safe = "\\x1b]0;pwned\\x07\\x0a"
    assert written(fired(Printed(("\tuser\n", GuestText(hostile)))), style=QUIET)[0] == "\tuser\n" + safe
    assert written(fired(TraceString(hostile)), style=QUIET)[0] == safe
    assert written(agg((STRING,), Row((hostile,), 1)))[0] == f"\n  {safe:<50}                1\n"
    raw = TextStyle(quiet=True, escape=False)
    assert written(fired(TraceString(hostile)), style=raw)[0] == hostile


@given(text=st.text(), quiet=st.booleans(), flow=st.booleans())
def test_no_control_character_of_the_guest_is_written(text: str, quiet: bool, flow: bool) -> None:
    probe = ProbeIdentity(1, ProbeName(text, text, text, text))
    events: list[Event] = [
        fired(TraceString(text), Printed((GuestText(text),)), probe=probe),
        agg((STRING,), Row((text,), 1)),
        Fault(probe, 1, value=1, clause=text, where=text),
        Message(text),
    ]
    for stream in written(*events, style=TextStyle(quiet=quiet, flow=flow)):
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in stream.replace("\n", ""))
    assert written(fired(TraceString(text), probe=probe))[0].count("\n") == 2


def test_a_closed_pipe_is_the_callers_affair() -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        TextRenderer(Closed(), io.StringIO()).event(fired())


def test_begin_has_an_empty_function() -> None:
    assert BEGIN.name.function == ""
