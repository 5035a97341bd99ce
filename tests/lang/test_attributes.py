"""Stability attributes."""

from __future__ import annotations

import pytest

from probekit.lang.attributes import STABLE, Attributes, parse_attributes, weaker, weakest


def test_attributes_are_read_in_any_case() -> None:
    assert parse_attributes("STABLE/evolving/isa") == ("Stable", "Evolving", "ISA")


@pytest.mark.parametrize(
    "text", ["", "Stable", "Stable/Stable", "Stable/Stable/Stable", "Stable/Common/Common", "a/b/c"]
)
def test_anything_else_is_no_attributes(text: str) -> None:
    assert parse_attributes(text) is None


def test_the_least_is_the_weakest_of_each_of_the_three() -> None:
    first: Attributes = ("Private", "Stable", "Common")
    second: Attributes = ("Stable", "Unstable", "CPU")
    assert weakest([first, second]) == ("Private", "Unstable", "CPU")
    assert weakest([]) == STABLE


def test_one_weaker_attribute_of_three_is_enough() -> None:
    minimum: Attributes = ("Evolving", "Evolving", "ISA")
    assert not weaker(minimum, minimum)
    assert not weaker(("Stable", "Evolving", "Common"), minimum)
    assert weaker(("Unstable", "Standard", "Common"), minimum)
    assert weaker(("Standard", "Standard", "Platform"), minimum)
