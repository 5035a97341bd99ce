"""Drop messages: DTrace's words."""

from __future__ import annotations

from typing import get_args

import pytest

from probekit.consumer.events import Drop, DropKind, ProbeIdentity
from probekit.consumer.text.drops import DROP_WORDS, drop_text
from probekit.probe.names import ProbeName


@pytest.mark.parametrize(
    ("kind", "cpu", "count", "expected"),
    [
        ("principal", 0, 12, "12 drops on CPU 0"),
        ("principal", 3, 1, "1 drop on CPU 3"),
        ("aggregation", 1, 5, "5 aggregation drops on CPU 1"),
        ("dynamic", None, 1, "1 dynamic variable drop"),
        ("dyndirty", None, 2, "2 dynamic variable drops with non-empty dirty list"),
        ("spec", None, 2, "2 speculative drops"),
        ("specbusy", None, 2, "2 failed speculations (available buffer(s) still busy)"),
        ("specunavail", None, 1, "1 failed speculation (no speculative buffer available)"),
        ("dblerror", None, 2, "2 errors in ERROR probe enabling"),
        (
            "silenced",
            None,
            1,
            "1 watchdog timeout: probes were off because probekit sent no heartbeat for some seconds",
        ),
        ("unseen", None, 2, "2 unseen changes of watched memory"),
        ("undecoded", None, 1, "1 unknown instruction at watched memory"),
        ("steps", None, 2, "2 single steps without a trap"),
        ("recursion", 0, 2, "2 recursion drops on CPU 0"),
        ("corrupt", 0, 1, "1 corrupt record on CPU 0"),
        ("missed", None, 3, "3 missed firings"),
    ],
)
def test_words(kind: DropKind, cpu: int | None, count: int, expected: str) -> None:
    assert drop_text(Drop(kind, cpu, count, count)) == expected


def test_missed_firings_name_their_probe() -> None:
    probe = ProbeIdentity(7, ProbeName("profile", "", "", "profile-997"))
    assert drop_text(Drop("missed", None, 1, 4, probe)) == "1 missed firing of profile:::profile-997"


def test_every_kind_has_words() -> None:
    assert set(DROP_WORDS) == set(get_args(DropKind))
