"""Read the format of a marker as printf does, and tell what type each argument has.

"turn %lu of %s"   ->  unsigned long, char *
"at %pS: %d%%"     ->  void *, int              letters after %p are the kernel's own and say how it is printed

Formats come from the guest: a conversion that is not known is an error that names it.
"""

from __future__ import annotations

import re

from probekit.errors import required
from probekit.kernel.c_types import CInt, CPointer, CType, CVoid

__all__ = ("MAX_ARGUMENTS", "MarkerFormatError", "argument_types")

MAX_ARGUMENTS = 10
"""The most arguments of a marker (vm/include/probekit/marker.h)."""

_CONVERSION = re.compile(
    r"%[-+ #0]*(?P<width>\*|\d*)(?:\.(?P<digits>\*|\d*))?(?P<size>hh|h|ll|l|z|t|j|)(?P<kind>.?)", re.DOTALL
)
# LP64: C's name of the type and its bytes, by length modifier.
_SIGNED = {
    "hh": ("signed char", 1),
    "h": ("short", 2),
    "": ("int", 4),
    "l": ("long", 8),
    "ll": ("long long", 8),
    "z": ("long", 8),
    "t": ("long", 8),
    "j": ("long", 8),
}
_UNSIGNED = {
    "hh": ("unsigned char", 1),
    "h": ("unsigned short", 2),
    "": ("unsigned int", 4),
    "l": ("unsigned long", 8),
    "ll": ("unsigned long long", 8),
    "z": ("unsigned long", 8),
    "t": ("unsigned long", 8),
    "j": ("unsigned long", 8),
}
_CHAR = CInt("char", 1, signed=True)
_INTEGERS: dict[str, CType] = {key: CInt(name, size, signed=True) for key, (name, size) in _SIGNED.items()}
_NUMBERS: dict[str, CType] = {key: CInt(name, size, signed=False) for key, (name, size) in _UNSIGNED.items()}
_KINDS: dict[str, dict[str, CType]] = {
    **dict.fromkeys("di", _INTEGERS),
    **dict.fromkeys("ouxX", _NUMBERS),
    "c": {"": _CHAR},
    "s": {"": CPointer(_CHAR)},
    "p": {"": CPointer(CVoid())},
}


class MarkerFormatError(ValueError):
    """The format cannot be read. The text reads well after a colon."""


def argument_types(text: str) -> tuple[CType, ...]:
    """Return the C type of each argument. Raises :class:`MarkerFormatError`."""
    found: list[CType] = []
    at = text.find("%")
    while at >= 0:
        match = required(_CONVERSION.match(text, at), "a match at a percent sign, which matches alone")
        whole, kind = match[0], match["kind"]
        if not kind:
            raise MarkerFormatError("its format ends in the middle of a conversion")
        if "*" in (match["width"], match["digits"]):
            raise MarkerFormatError(f"its format takes a width as an argument ({whole})")
        if whole != "%%":
            c_type = _KINDS.get(kind, {}).get(match["size"])
            if c_type is None:
                raise MarkerFormatError(f"its format has a conversion that is not known ({whole})")
            found.append(c_type)
        at = text.find("%", match.end())
    if len(found) > MAX_ARGUMENTS:
        raise MarkerFormatError(f"its format has {len(found)} arguments, more than {MAX_ARGUMENTS}")
    return tuple(found)
