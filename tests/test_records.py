"""Records behave as frozen dataclasses with slots do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, replace
from types import MappingProxyType

import pytest

from probekit.records import fresh, mutable_record, record, replaced


@record
class Point:
    """A point."""

    x: int
    y: int = 7

    @property
    def sum(self) -> int:
        return self.x + self.y


@record
class Other:
    x: int
    y: int = 7


@record
class Named:
    """Its default cannot be hashed."""

    names: Mapping[str, int] = MappingProxyType({})


@record
class Listed:
    """Its list is made anew for each instance."""

    first: int
    items: list[int] = fresh(list)


@mutable_record
class Counter:
    """State."""

    name: str
    count: int = 0
    seen: dict[str, int] = fresh(lambda: {"a": 1})

    def more(self) -> int:
        """Count."""
        self.count += 1
        return self.count


@record
class Empty:
    """Nothing."""


def test_a_record_is_made_by_position_and_by_name() -> None:
    assert (Point(1).x, Point(1).y, Point(1, 2).y, Point(y=3, x=4).sum) == (1, 7, 2, 7)
    for wrong in ((), (1, 2, 3)):
        with pytest.raises(TypeError):
            Point(*wrong)
    with pytest.raises(TypeError):
        Point(1, z=2)  # type: ignore[call-arg]
    assert Point.__doc__ == "A point." and repr(Point(1)) == "Point(x=1, y=7)" and repr(Empty()) == "Empty()"


def test_equality_and_hash_are_those_of_the_values_and_the_class() -> None:
    assert Point(1, 2) == Point(1, 2) != Point(1, 3)
    assert Point(1) != Other(1) and Point(1) != (1, 7)
    assert len({Point(1), Point(1, 7), Other(1), Empty(), Empty()}) == 3


def test_nothing_can_be_changed_or_added() -> None:
    point = Point(1)
    for name in ("x", "z"):
        with pytest.raises(FrozenInstanceError):
            setattr(point, name, 2)
    with pytest.raises(FrozenInstanceError):
        del point.x  # type: ignore[misc]
    assert not hasattr(point, "__dict__")


def test_patterns_copies_and_the_functions_of_dataclasses() -> None:
    match Point(1, 2):
        case Point(1, y=y):
            assert y == 2
        case _:
            raise AssertionError("no match")
    assert replaced(Point(1), y=0) == replace(Point(1), y=0) == Point(1, 0)
    assert [f.name for f in fields(Point)] == ["x", "y"]
    assert replace(Named(), names={"a": 1}).names == {"a": 1} and Named().names == {}
    assert copy.deepcopy(Point(1, 2)) == pickle.loads(pickle.dumps(Point(1, 2))) == Point(1, 2)


def test_a_fresh_default_belongs_to_one_instance() -> None:
    one, other = Listed(1), Listed(1)
    assert one == other and one.items == [] and one.items is not other.items
    given = [3]
    assert Listed(1, given).items is given
    assert replaced(one, first=2).items is one.items
    assert [f.default_factory for f in fields(Listed)][1] is list


def test_a_mutable_record_is_state() -> None:
    one, other = Counter("x"), Counter("x")
    assert one != other and one == one and len({one, other}) == 2
    assert one.more() == 1 and (one.count, other.count) == (1, 0)
    one.seen["b"] = 2
    assert other.seen == {"a": 1} and Counter("y", 5, {}).seen == {}
    with pytest.raises(AttributeError):
        one.missing = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Counter()  # type: ignore[call-arg]
