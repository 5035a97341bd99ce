"""The table of probes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from probekit.consumer.events import ProbeIdentity
from probekit.output.probe_list import ListedProbe, Refused, listing_json, listing_text
from probekit.probe.names import ProbeName

from .samples import BEGIN, READ

HEADER = "   ID   PROVIDER            MODULE                          FUNCTION NAME"


def test_the_table() -> None:
    assert list(listing_text([ListedProbe(BEGIN), ListedProbe(READ)])) == [
        HEADER,
        "    1     dtrace                                                     BEGIN",
        "51234        fbt           vmlinux                          vfs_read entry",
    ]


def test_an_empty_table_is_a_header() -> None:
    assert list(listing_text([])) == [HEADER]


def test_long_names_push_their_row_out() -> None:
    name = ProbeName("a_long_provider", "a_very_long_module_name", "f" * 40, "entry")
    assert list(listing_text([ListedProbe(ProbeIdentity(7, name))]))[1] == (
        f"    7 a_long_provider a_very_long_module_name {'f' * 40} entry"
    )


def test_verbose() -> None:
    listed = ListedProbe(READ, ("struct file *", "char *"), ("Evolving", "Private", "ISA"), ("5-byte pad",))
    assert list(listing_text([listed], verbose=True))[2:] == [
        "",
        "\tProbe Description Attributes",
        "\t\tIdentifier Names: Evolving",
        "\t\tData Semantics:   Private",
        "\t\tDependency Class: ISA",
        "",
        "\tArgument Attributes",
        "\t\tIdentifier Names: Evolving",
        "\t\tData Semantics:   Private",
        "\t\tDependency Class: ISA",
        "",
        "\tArgument Types",
        "\t\targs[0]: struct file *",
        "\t\targs[1]: char *",
        "",
        "\tNotes",
        "\t\t5-byte pad",
        "",
    ]


def test_arguments_that_are_none_or_unknown() -> None:
    assert "\t\tNone" in list(listing_text([ListedProbe(BEGIN, ())], verbose=True))
    assert "\t\tUnknown" in list(listing_text([ListedProbe(BEGIN)], verbose=True))


def test_refused_functions_say_why() -> None:
    refused = Refused(ProbeName("fbt", "vmlinux", "do_int3", "entry"), "runs inside the trap path")
    assert list(listing_text([], [refused]))[1:] == [
        "    -        fbt           vmlinux                           do_int3 entry",
        "\t\tnot available: runs inside the trap path",
    ]


def test_json() -> None:
    refused = Refused(ProbeName("fbt", "vmlinux", "do_int3", "entry"), "runs inside the trap path")
    listed = [ListedProbe(BEGIN), ListedProbe(READ, ("char *",), notes=("5-byte pad",))]
    assert [json.loads(line) for line in listing_json(listed, [refused])] == [
        {"type": "listing", "id": 1, "probe": {"provider": "dtrace", "module": "", "function": "", "name": "BEGIN"}},
        {
            "type": "listing",
            "id": 51234,
            "probe": {"provider": "fbt", "module": "vmlinux", "function": "vfs_read", "name": "entry"},
            "args": ["char *"],
            "notes": ["5-byte pad"],
        },
        {
            "type": "refused",
            "probe": {"provider": "fbt", "module": "vmlinux", "function": "do_int3", "name": "entry"},
            "reason": "runs inside the trap path",
        },
    ]


@given(st.text())
def test_names_cannot_break_the_table(text: str) -> None:
    listed = ListedProbe(ProbeIdentity(1, ProbeName(text, text, text, text)), (text,), notes=(text,))
    lines = list(listing_text([listed], [Refused(listed.probe.name, text)], verbose=True))
    assert not any(c in line for line in lines for c in "\x1b\n\r\x9b")
