"""Parse and compare stability attributes: how far a script may rely on a name, on its data and on what it depends on.

parse_attributes("Stable/evolving/Common")   ->  ("Stable", "Evolving", "Common")
weakest([a, b])                              ->  the weaker of each of the three
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ("STABLE", "Attributes", "parse_attributes", "weaker", "weakest")

Attributes = tuple[str, str, str]
"""Stability of the names, stability of the data, dependency class."""

STABLE: Attributes = ("Stable", "Stable", "Common")
"""The attributes of D's own variables and functions, and of those that a script defines."""

_ORDER = ("Internal", "Private", "Obsolete", "External", "Unstable", "Evolving", "Stable", "Standard")
_CLASSES = ("Unknown", "CPU", "Platform", "Group", "ISA", "Common")
_SCALES = (_ORDER, _ORDER, _CLASSES)


def parse_attributes(text: str) -> Attributes | None:
    """Parse ``Stable/Stable/Common``, in any case. Returns None for anything else."""
    parts = text.lower().split("/")
    if len(parts) != 3:
        return None
    named = [next((n for n in scale if n.lower() == p), "") for p, scale in zip(parts, _SCALES, strict=True)]
    return (named[0], named[1], named[2]) if all(named) else None


def weakest(attributes: Sequence[Attributes]) -> Attributes:
    """Return the weakest of each of the three; :data:`STABLE` for an empty sequence."""
    if not attributes:
        return STABLE
    names, data, classes = zip(*attributes, strict=True)
    return min(names, key=_ORDER.index), min(data, key=_ORDER.index), min(classes, key=_CLASSES.index)


def weaker(attributes: Attributes, minimum: Attributes) -> bool:
    """Tell whether any of the three is below the minimum."""
    pairs = zip(attributes, minimum, _SCALES, strict=True)
    return any(scale.index(has) < scale.index(wants) for has, wants, scale in pairs)
