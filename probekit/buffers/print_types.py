"""Describe the values that ``print()`` shows, so that the consumer can render them from their bytes alone."""

from __future__ import annotations

from probekit.records import record

__all__ = (
    "PrintArray",
    "PrintEnum",
    "PrintInt",
    "PrintMember",
    "PrintPointer",
    "PrintString",
    "PrintStruct",
    "PrintType",
)


@record
class PrintInt:
    """An integer."""

    name: str
    """The C type as it is declared."""
    bits: int
    """Its width: 8, 16, 32 or 64."""
    signed: bool
    """Whether it is shown with a sign."""
    char: bool = False
    """True when it is shown as a character (``char``, ``signed char``, ``unsigned char``, but not ``int8_t``)."""
    bit_offset: int = 0
    """Where a bit-field begins in its ``bits``."""
    bit_size: int = 0
    """The width of a bit-field; 0 for any other integer."""


@record
class PrintPointer:
    """A pointer or function. It is shown as its value, and never followed."""

    name: str
    """The C type as it is declared."""


@record
class PrintString:
    """A D ``string``."""

    size: int
    """Bytes."""
    name: str = "string"
    """The D type's name."""


@record
class PrintEnum:
    """An enum."""

    name: str
    """The C type as it is declared."""
    bits: int
    """Its width."""
    values: tuple[tuple[str, int], ...]
    """The names and their values, in the order of the declaration."""


@record
class PrintArray:
    """An array."""

    name: str
    """The whole type, such as ``int [4]``."""
    element: PrintType
    """The shape of an element."""
    count: int
    """How many elements there are."""
    stride: int
    """Bytes of an element."""


@record
class PrintMember:
    """A member of a struct or union."""

    name: str
    """Empty for an anonymous struct or union."""
    offset: int
    """Bytes from the parent's start."""
    type: PrintType
    """Its shape."""


@record
class PrintStruct:
    """A struct or union."""

    name: str
    """The type with its keyword, such as ``struct foo``."""
    members: tuple[PrintMember, ...]
    """The members, in the order of the declaration."""
    size: int
    """Bytes."""


PrintType = PrintInt | PrintPointer | PrintString | PrintEnum | PrintArray | PrintStruct
"""The shape of a value."""
