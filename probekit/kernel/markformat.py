"""The format of a marker, read as printf reads it: what type each argument has.

"turn %lu of %s"   ->  unsigned long, char *
"at %pS: %d%%"     ->  void *, int              letters behind %p are the kernel's own and say how it is printed

Formats come from the guest: whatever is not understood is an error that names it.
"""

from __future__ import annotations

import re

from probekit.errors import InternalError
from probekit.kernel.types import CType, IntType, PtrType, VoidType

__all__ = ("MAX_ARGUMENTS", "FormatError", "argument_types")

MAX_ARGUMENTS = 10

_CONVERSION = re.compile(
    r"%[-+ #0]*(?P<width>\*|\d*)(?:\.(?P<digits>\*|\d*))?(?P<size>hh|h|ll|l|z|t|j|)(?P<kind>.?)", re.DOTALL
)
# LP64: (what C calls it, bytes) by the length modifier.
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
_CHAR = IntType("char", 1, signed=True, is_char=True)
_INTEGERS: dict[str, CType] = {key: IntType(name, size, signed=True) for key, (name, size) in _SIGNED.items()}
_NUMBERS: dict[str, CType] = {key: IntType(name, size, signed=False) for key, (name, size) in _UNSIGNED.items()}
_KINDS: dict[str, dict[str, CType]] = {
    **dict.fromkeys("di", _INTEGERS),
    **dict.fromkeys("ouxX", _NUMBERS),
    "c": {"": _CHAR},
    "s": {"": PtrType(_CHAR)},
    "p": {"": PtrType(VoidType())},
}


class FormatError(ValueError):
    """A format that is none. The text reads after a colon."""


def argument_types(text: str) -> tuple[CType, ...]:
    """The C type of each argument. Raises :class:`FormatError`."""
    found: list[CType] = []
    at = text.find("%")
    while at >= 0:
        match = _CONVERSION.match(text, at)
        if match is None:  # a % alone matches
            raise InternalError("the pattern of a conversion does not match at a %")
        whole, kind = match[0], match["kind"]
        if not kind:
            raise FormatError("its format ends in the middle of a conversion")
        if "*" in (match["width"], match["digits"]):
            raise FormatError(f"its format takes a width as an argument ({whole})")
        if whole != "%%":
            c_type = _KINDS.get(kind, {}).get(match["size"])
            if c_type is None:
                raise FormatError(f"its format has a conversion that is not known ({whole})")
            found.append(c_type)
        at = text.find("%", match.end())
    if len(found) > MAX_ARGUMENTS:
        raise FormatError(f"its format has {len(found)} arguments, more than {MAX_ARGUMENTS}")
    return tuple(found)
