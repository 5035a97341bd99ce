"""What is probed in the guest: sites in its text, and memory that is watched, numbered in one row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from probekit.enabling.sites import SiteSet
from probekit.patch.sites import TextFacts
from probekit.probe.names import ProbeName
from probekit.session import guest_sites
from probekit.session.guest_sites import GuestSites, find_guest_sites
from tests.support.small_enabling import small_sites


def ecb(number: int, *, function: bool = False, watched: str | None = None) -> Any:
    probe = SimpleNamespace(
        id=number,
        name=ProbeName("fbt", "vmlinux", f"f{number}", "entry"),
        function="f" if function else None,
        watched=watched,
    )
    return SimpleNamespace(probe=probe, clauses=(0,))


def found(monkeypatch: pytest.MonkeyPatch, *ecbs: Any, **options: bool) -> tuple[GuestSites, list[Any], list[str]]:
    """What is found, what the search was given, and the progress."""
    given: list[Any] = []
    said: list[str] = []

    def find(*arguments: Any) -> SiteSet:
        given.append(arguments)
        return SiteSet(tuple(small_sites()), ())

    monkeypatch.setattr(guest_sites, "find_sites", find)
    attachment: Any = SimpleNamespace(
        progress=said.append,
        text_facts=TextFacts(pads=frozenset({1})),
        side_entries=(7,),
        read_code="read_code",
        system_calls="system_calls",
    )
    matching: Any = SimpleNamespace(in_guest=lambda: ecbs, ecbs=ecbs)
    wanted = {"kinstjump": False, "steps_in_place": False} | options
    return find_guest_sites(attachment, matching, **wanted), given, said


def test_watched_memory_is_numbered_after_the_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    text, memory = ecb(5, function=True), ecb(9, watched="a range")
    sites, given, said = found(monkeypatch, text, memory)
    count = len(small_sites())
    assert sites.count == count + 1 and [w.number for w in sites.watches] == [count]
    assert sites.probes[count].id == 9 and set(sites.probes) == set(range(count + 1))
    assert given[0][0] == [text] and said == ["finding the sites of 1 probes"]


def test_nothing_in_text_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sites, given, said = found(monkeypatch, ecb(9, watched="a range"))
    assert sites.count == 1 and given == [] and said == []
    assert GuestSites().count == 0 and GuestSites().probes == {}


@pytest.mark.parametrize(
    ("options", "function", "facts"),
    [
        ({}, False, TextFacts()),
        ({}, True, TextFacts(pads=frozenset({1}))),
        ({"kinstjump": True}, True, TextFacts(pads=frozenset({1}), side_entries=(7,))),
        ({"steps_in_place": True}, True, TextFacts(pads=frozenset({1}), trapping=True, fixups=True)),
    ],
)
def test_what_the_search_has_to_know(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], function: bool, facts: TextFacts
) -> None:
    _, given, _ = found(monkeypatch, ecb(5, function=function), **options)
    assert given[0][2] == facts
