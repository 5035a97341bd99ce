"""Timed probes: their names and periods."""

from __future__ import annotations

from itertools import count

import pytest

from probekit.probe.names import ProbeDescription
from probekit.providers.profile import ProfileProvider, is_sampling, period_ns


@pytest.mark.parametrize(
    ("name", "period"),
    [
        ("tick-1", 1_000_000_000),
        ("tick-1000hz", 1_000_000),
        ("profile-97", 10_309_278),
        ("tick-5ms", 5_000_000),
        ("tick-1min", 60_000_000_000),
        ("tick-2day", 172_800_000_000_000),
        ("tick-200us", 200_000),
        ("tick-199us", None),
        ("tick-5001", None),
        ("tick-0", None),
        ("tick-1fortnight", None),
        ("tick-", None),
        ("tock-1", None),
        ("tick-1s ", None),
        ("tick-" + "9" * 19, None),
    ],
)
def test_a_name_is_a_frequency_or_a_time(name: str, period: int | None) -> None:
    assert period_ns(name) == period


def _names(provider: ProfileProvider, text: str) -> list[str]:
    return [probe.name.name for probe in provider.match(ProbeDescription.parse(text))]


def test_a_glob_finds_only_probes_that_exist() -> None:
    provider = ProfileProvider(count(10))
    before = _names(provider, "profile:::tick-*")
    assert "tick-10" in before
    assert "tick-7" not in before
    assert _names(provider, "profile:::tick-7") == ["tick-7"]
    assert "tick-7" in _names(provider, "profile:::tick-*")


def test_a_probe_that_is_named_twice_is_the_same_probe() -> None:
    provider = ProfileProvider(count(10))
    (first,) = provider.match(ProbeDescription.parse("tick-7"))
    (second,) = provider.match(ProbeDescription.parse("tick-7"))
    assert first == second == provider.by_id(first.id)


def test_another_provider_s_name_makes_no_probe() -> None:
    assert _names(ProfileProvider(count(10)), "fbt:::tick-7") == []


def test_only_profile_probes_fire_on_every_cpu() -> None:
    provider = ProfileProvider(count(10))
    kinds = {probe.name.name: is_sampling(probe) for probe in provider.match(ProbeDescription.parse("profile:::"))}
    assert kinds["profile-97"]
    assert not kinds["tick-10"]
