"""What one firing of one clause records, and what the consumer does with it.

A clause whose predicate held leaves one *record*: a header and the fields of
all its data-recording actions, at fixed offsets. The consumer walks the
clause's actions in order and renders each from its fields.

    printf("%d %s", pid, execname); trace(arg0);
    fields  0: int 4 bytes at 0   1: string 16 bytes at 8   2: int 8 bytes at 24
    actions Printf(format, (0, 1)), Trace(2)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from probekit.buffers.formats import Format

__all__ = (
    "Action",
    "Default",
    "Exit",
    "Field",
    "FieldKind",
    "Printf",
    "RecordPlan",
    "Trace",
    "field_layout",
)

FieldKind = Literal["int", "uint", "string", "probe"]
"""``int``/``uint``: 1, 2, 4 or 8 bytes, little endian. ``string``: NUL-padded bytes.

``probe``: no bytes at all; the consumer knows the probe that fired and takes
``probeprov``/``probemod``/``probefunc``/``probename`` from it (``Field.detail``).
"""


@dataclass(frozen=True, slots=True)
class Field:
    """One recorded item. ``offset``: bytes from the end of the record header; ``size``: bytes (0 for ``probe``)."""

    offset: int
    size: int
    kind: FieldKind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """``trace(x)``: print field ``field`` as DTrace's default rendering does."""

    field: int


@dataclass(frozen=True, slots=True)
class Printf:
    """``printf(format, ...)``: ``fields`` are the arguments in order."""

    format: Format
    fields: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exit:
    """``exit(status)``: tracing ends when the consumer meets it; ``field`` holds the status."""

    field: int


@dataclass(frozen=True, slots=True)
class Default:
    """The default action of an empty clause: the probe's line, and nothing more."""


Action = Trace | Printf | Exit | Default


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """The record of one clause. ``size``: bytes of all fields, padded to 8 (the header not counted)."""

    fields: tuple[Field, ...]
    actions: tuple[Action, ...]
    size: int


def field_layout(items: list[tuple[int, FieldKind, str]]) -> tuple[tuple[Field, ...], int]:
    """Place ``(size, kind, detail)`` items one after another, integers aligned to their size, strings to 8.

    Returns the fields and the total size in bytes, padded to 8.
    """
    fields: list[Field] = []
    offset = 0
    for size, kind, detail in items:
        align = 8 if kind == "string" else max(size, 1)
        offset = -(-offset // align) * align
        fields.append(Field(offset=offset, size=size, kind=kind, detail=detail))
        offset += size
    return tuple(fields), -(-offset // 8) * 8
