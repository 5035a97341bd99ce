"""Where the shared routines of one image are."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Routines",)


@dataclass(frozen=True, slots=True)
class Routines:
    """Addresses. ``find``: the lookup of each hashed aggregation, by its number."""

    reserve: int
    copy: int
    compare: int
    find: dict[int, int]
