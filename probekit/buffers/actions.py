"""What one firing of one clause records, and what the consumer does with it.

A clause whose predicate held leaves one *record*: a header and the fields of
all its data-recording actions, at fixed offsets. The consumer walks the
clause's actions in order and renders each from its fields.

    printf("%d %s", pid, execname); trace(arg0);
    fields  0: int 4 bytes at 0   1: string 16 bytes at 8   2: int 8 bytes at 24
    actions Printf(format, (0, 1)), TraceAction(2)

``field`` and ``fields`` are numbers of ``RecordPlan.fields``; ``agg`` and
``aggs`` are numbers of the program's aggregations (``AggPlan.index``). An action
without a field is still an action of the plan: the consumer needs its place.
"""

from __future__ import annotations

from typing import Literal

from probekit.buffers.formats import Format
from probekit.records import record

__all__ = (
    "RECORDING",
    "Action",
    "Breakpoint",
    "Chill",
    "Clear",
    "Commit",
    "Default",
    "Denormalize",
    "Discard",
    "Exit",
    "FieldKind",
    "Freopen",
    "Ftruncate",
    "Normalize",
    "Panic",
    "Print",
    "PrintArray",
    "PrintEnum",
    "PrintInt",
    "PrintMember",
    "PrintPointer",
    "PrintString",
    "PrintStruct",
    "PrintType",
    "Printa",
    "Printf",
    "Raise",
    "RecordField",
    "RecordPlan",
    "Setopt",
    "Speculate",
    "Stack",
    "Stop",
    "SymbolAction",
    "SymbolKind",
    "System",
    "TraceAction",
    "Tracemem",
    "Trunc",
    "action_name",
    "field_layout",
)

FieldKind = Literal["int", "uint", "string", "probe", "bytes", "stack"]
"""``int``/``uint``: 1, 2, 4 or 8 bytes, little endian. ``string``: NUL-padded bytes.

``probe``: no bytes at all; the consumer knows the probe that fired and takes
``probeprov``/``probemod``/``probefunc``/``probename`` from it (``RecordField.detail``).
``bytes``: memory as it was (``tracemem``, ``print``, a traced struct or array).
``stack``: 8-byte addresses, innermost first, ended by the first 0 or the field's end
(``size`` is 8 times the frames asked for; all 0 when there is no kernel stack).
"""

SymbolKind = Literal["sym", "func", "mod", "usym", "ufunc", "umod", "uaddr"]


@record
class RecordField:
    """One recorded item. ``offset``: bytes from the end of the record header; ``size``: bytes (0 for ``probe``).

    ``detail`` of an integer field that holds an address: a :data:`SymbolKind`, when D's type of it is what
    ``sym()`` and its kin return (``printf("%s", sym(x))``, ``trace(func(x))``); else empty.
    """

    offset: int
    size: int
    kind: FieldKind
    detail: str = ""


@record
class TraceAction:
    """``trace(x)``: print field ``field`` as DTrace's default rendering does, whatever its kind."""

    field: int


@record
class Printf:
    """``printf(format, ...)``: ``fields`` are the arguments in order (those for ``*`` included, where they stand)."""

    format: Format
    fields: tuple[int, ...]


@record
class Printa:
    """``printa([format,] @a, @b ...)``: ``format`` None is DTrace's own table. ``aggs`` in the order written.

    In a format, plain conversions take the key's elements in order, ``%@`` ones the aggregations' values in order.
    """

    format: Format | None
    aggs: tuple[int, ...]


@record
class Clear:
    """``clear(@a)``: values become zero, keys stay."""

    agg: int


@record
class Trunc:
    """``trunc(@a[, n])``: ``field`` holds n (a signed integer), None removes every key."""

    agg: int
    field: int | None = None


@record
class Normalize:
    """``normalize(@a, n)``: ``field`` holds n (an unsigned integer)."""

    agg: int
    field: int


@record
class Denormalize:
    """``denormalize(@a)``."""

    agg: int


@record
class Stack:
    """``stack([n])``, ``ustack([n])``, ``jstack()`` as statements: ``field`` is of kind ``stack``."""

    field: int
    user: bool = False


@record
class SymbolAction:
    """``sym(addr)``, ``func(addr)``, ``mod(addr)``, the ``u`` ones, as statements: ``field`` is an 8-byte ``uint``."""

    kind: SymbolKind
    field: int


@record
class Tracemem:
    """``tracemem(addr, size[, dsize])``: ``field`` is ``bytes`` of ``size``.

    ``size_field``: the integer ``dsize``, None without; below 0 or above ``size``, all bytes are shown.
    """

    field: int
    size_field: int | None = None


@record
class PrintInt:
    """An integer of ``print()``. ``name``: the C type as declared; ``bits``: its width, 8 to 64.

    ``bit_offset``/``bit_size``: of a bit-field within its ``bits`` (``bit_size`` 0: not one). ``char``: shown as a
    character (``char``, ``signed char``, ``unsigned char``, not ``int8_t``).
    """

    name: str
    bits: int
    signed: bool
    char: bool = False
    bit_offset: int = 0
    bit_size: int = 0


@record
class PrintPointer:
    """A pointer (or function) of ``print()``: shown as its value, never followed."""

    name: str


@record
class PrintString:
    """A D ``string`` of ``size`` bytes."""

    size: int
    name: str = "string"


@record
class PrintEnum:
    """An enum of ``print()``. ``values``: (name, value) as declared."""

    name: str
    bits: int
    values: tuple[tuple[str, int], ...]


@record
class PrintArray:
    """An array of ``print()``. ``name``: the whole type, such as ``int [4]``; ``stride``: bytes of an element."""

    name: str
    element: PrintType
    count: int
    stride: int


@record
class PrintMember:
    """A member: ``name`` empty for an anonymous struct or union; ``offset`` in bytes from the parent's start."""

    name: str
    offset: int
    type: PrintType


@record
class PrintStruct:
    """A struct or union of ``print()``. ``name`` with its word: ``struct foo``; ``size`` in bytes."""

    name: str
    members: tuple[PrintMember, ...]
    size: int


PrintType = PrintInt | PrintPointer | PrintString | PrintEnum | PrintArray | PrintStruct


@record
class Print:
    """``print(x)``: ``field`` holds the value itself (``bytes``, or an integer or string), ``type`` its shape.

    ``addr_field``: ``print(ptr)`` (Oracle's form) shows what the pointer points at; this integer is the pointer and
    ``type`` the pointed-at type. None: the value itself is printed (illumos' form).
    """

    field: int
    type: PrintType
    addr_field: int | None = None


@record
class Speculate:
    """``speculate(id)``: all of this record belongs to speculation ``id`` (an integer field); first of the actions."""

    field: int


@record
class Commit:
    """``commit(id)``: what speculation ``id`` holds is output here. The record itself shows nothing."""

    field: int


@record
class Discard:
    """``discard(id)``: forget what speculation ``id`` holds."""

    field: int


@record
class Setopt:
    """``setopt(name[, value])``: string fields; ``value`` None is a bare name."""

    name: int
    value: int | None = None


@record
class System:
    """``system(format, ...)``: run the formatted text by the shell, output in place. Destructive."""

    format: Format
    fields: tuple[int, ...]


@record
class Freopen:
    """``freopen(format, ...)``: output goes to that file from here on; an empty name is the first output. Destructive.

    ``freopen("")`` restores standard output.
    """

    format: Format
    fields: tuple[int, ...]


@record
class Ftruncate:
    """``ftruncate()``: cut the output file to nothing, if it is a file."""


@record
class Raise:
    """``raise(signal)``: to the process that fired the probe. Destructive."""

    field: int


@record
class Stop:
    """``stop()``: the process that fired the probe. Destructive."""


@record
class Panic:
    """``panic()``. Destructive; on the host it does nothing."""


@record
class Breakpoint:
    """``breakpoint()``. Destructive; on the host it does nothing."""


@record
class Chill:
    """``chill(ns)``: wait. ``field``: nanoseconds, at most half a second in all each second. Destructive."""

    field: int


@record
class Exit:
    """``exit(status)``: tracing ends when the consumer meets it; ``field`` holds the status."""

    field: int


@record
class Default:
    """The default action of an empty clause: the probe's line, and nothing more."""


Action = (
    TraceAction
    | Printf
    | Printa
    | Clear
    | Trunc
    | Normalize
    | Denormalize
    | Stack
    | SymbolAction
    | Tracemem
    | Print
    | Speculate
    | Commit
    | Discard
    | Setopt
    | System
    | Freopen
    | Ftruncate
    | Raise
    | Stop
    | Panic
    | Breakpoint
    | Chill
    | Exit
    | Default
)


def action_name(action: Action) -> str:
    """Return what a script calls an action, such as ``printf``."""
    return type(action).__name__.removesuffix("Action").lower()


RECORDING: frozenset[type] = frozenset(
    (
        *(
            TraceAction,
            Printf,
            Printa,
            Clear,
            Trunc,
            Normalize,
            Denormalize,
            Stack,
            SymbolAction,
            Tracemem,
            Print,
            Speculate,
        ),
        *(Setopt, System, Freopen, Ftruncate, Exit, Default),
    )
)
"""Actions whose firing shows the probe's line when output is not quiet: what DTrace records data for.

The others (``commit discard raise stop panic breakpoint chill``) show nothing by themselves.
"""


@record
class RecordPlan:
    """The record of one clause. ``size``: bytes of all fields, padded to 8 (the header not counted)."""

    fields: tuple[RecordField, ...]
    actions: tuple[Action, ...]
    size: int

    @property
    def shown(self) -> bool:
        """True when a record of this plan is a line of output (see :data:`RECORDING`)."""
        return any(type(action) in RECORDING for action in self.actions)


def field_layout(items: list[tuple[int, FieldKind, str]]) -> tuple[tuple[RecordField, ...], int]:
    """Place ``(size, kind, detail)`` items one after another, integers aligned to their size, the rest to 8.

    Returns the fields and the total size in bytes, padded to 8.
    """
    fields: list[RecordField] = []
    offset = 0
    for size, kind, detail in items:
        align = max(size, 1) if kind in ("int", "uint", "probe") else 8
        offset = -(-offset // align) * align
        fields.append(RecordField(offset=offset, size=size, kind=kind, detail=detail))
        offset += size
    return tuple(fields), -(-offset // 8) * 8
