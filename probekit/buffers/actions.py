"""Define what one firing of one clause records, and what the consumer does with it.

A clause whose predicate is true leaves one *record*: a header, and the fields of all its data-recording actions at
fixed offsets. The consumer goes through the clause's actions in order and prints each from its fields.

    printf("%d %s", pid, execname); trace(arg0);
    fields  0: int 4 bytes at 0   1: string 16 bytes at 8   2: int 8 bytes at 24
    actions Printf(format, (0, 1)), TraceAction(2)

``field`` and ``fields`` are indexes of ``RecordPlan.fields``. ``agg`` and ``aggs`` are indexes of the program's
aggregations (``AggPlan.index``). The plan lists actions without a field too, because the consumer performs all of them
in order. Destructive actions need ``-w``.
"""

from __future__ import annotations

from typing import Literal

from probekit.buffers.formats import Format
from probekit.buffers.print_types import PrintType
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
"""What a field holds.

- ``int``, ``uint``: 1, 2, 4 or 8 bytes, little endian
- ``string``: bytes padded with NULs
- ``probe``: no bytes at all; the consumer knows which probe fired, and shows its ``probeprov``, ``probemod``,
  ``probefunc`` or ``probename`` (``RecordField.detail``)
- ``bytes``: a copy of memory (``tracemem``, ``print``, a traced struct or array)
- ``stack``: 8-byte addresses, innermost first, which end at the first 0 or with the field; all 0 without a kernel stack
"""

SymbolKind = Literal["sym", "func", "mod", "usym", "ufunc", "umod", "uaddr"]
"""The action that shows an address: as a symbol, function or module, of the kernel or (``u``) of a process."""


@record
class RecordField:
    """One recorded item."""

    offset: int
    """Bytes from the end of the record's header."""
    size: int
    """Bytes; 0 for ``probe``, 8 times the number of frames for ``stack``."""
    kind: FieldKind
    """What it holds."""
    detail: str = ""
    """How the consumer shows it, beyond ``kind``.

    - ``probe``: the built-in whose value is shown, such as ``probefunc``
    - ``stack``: ``ustack`` for a user stack, else empty
    - an integer that ``sym()``, ``func()`` and so on made (``printf("%s", sym(x))``): its :data:`SymbolKind`
    - otherwise empty
    """


@record
class TraceAction:
    """``trace(x)``: print a field in DTrace's default form for its kind."""

    field: int
    """The value."""


@record
class Printf:
    """``printf(format, ...)``."""

    format: Format
    """The parsed format."""
    fields: tuple[int, ...]
    """The arguments in order, those for ``*`` in their places."""


@record
class Printa:
    """``printa([format,] @a, @b ...)``.

    In a format, plain conversions take the elements of the key in order, and ``%@`` ones the values of the
    aggregations in order.
    """

    format: Format | None
    """None: DTrace's own table."""
    aggs: tuple[int, ...]
    """In the order in which they are written."""


@record
class Clear:
    """``clear(@a)``: set the values to zero, and keep the keys."""

    agg: int
    """The aggregation."""


@record
class Trunc:
    """``trunc(@a[, n])``: keep only the first keys, or the last ones for a negative number."""

    agg: int
    """The aggregation."""
    field: int | None = None
    """The number of keys, a signed integer; None: remove every key."""


@record
class Normalize:
    """``normalize(@a, n)``: divide the values when they are printed."""

    agg: int
    """The aggregation."""
    field: int
    """The divisor, an unsigned integer."""


@record
class Denormalize:
    """``denormalize(@a)``: print the values as they are."""

    agg: int
    """The aggregation."""


@record
class Stack:
    """``stack([n])``, ``ustack([n])``, ``jstack()`` as statements: print the stack in a field."""

    field: int
    """The stack."""
    user: bool = False
    """True for a user stack."""


@record
class SymbolAction:
    """``sym(addr)``, ``func(addr)``, ``mod(addr)`` and the ``u`` ones as statements: print what an address is in."""

    kind: SymbolKind
    """Which of the actions it is."""
    field: int
    """The address: an 8-byte ``uint``."""


@record
class Tracemem:
    """``tracemem(addr, size[, dsize])``: dump memory."""

    field: int
    """The memory: ``bytes``."""
    size_field: int | None = None
    """``dsize``, an integer: how many bytes to show.

    All bytes are shown when this is None, or when the integer is below 0 or above the field's size.
    """


@record
class Print:
    """``print(x)``: print a value with its names and types."""

    field: int
    """The value: ``bytes``, an integer or a string."""
    type: PrintType
    """Its shape."""
    addr_field: int | None = None
    """The pointer, an integer, in ``print(ptr)``, where the value is what it points at (Oracle's form).

    None: the value itself is printed (illumos' form).
    """


@record
class Speculate:
    """``speculate(id)``: keep the whole record for a speculation. It is the first of the clause's actions."""

    field: int
    """The speculation's number."""


@record
class Commit:
    """``commit(id)``: print the records that a speculation has kept. The clause's own record prints nothing."""

    field: int
    """The speculation's number."""


@record
class Discard:
    """``discard(id)``: drop the records that a speculation has kept."""

    field: int
    """The speculation's number."""


@record
class Setopt:
    """``setopt(name[, value])``: set an option."""

    name: int
    """The field of its name, a string."""
    value: int | None = None
    """The field of its value, a string; None without a value."""


@record
class System:
    """``system(format, ...)``: run the formatted text by the shell, with its output in place. Destructive."""

    format: Format
    """The command."""
    fields: tuple[int, ...]
    """The arguments in order."""


@record
class Freopen:
    """``freopen(format, ...)``: send the output to a file from now on. Destructive.

    An empty name (``freopen("")``) restores standard output.
    """

    format: Format
    """The file's name."""
    fields: tuple[int, ...]
    """The arguments in order."""


@record
class Ftruncate:
    """``ftruncate()``: cut the output file to nothing, if it is a file. Destructive."""


@record
class Raise:
    """``raise(signal)``: send a signal to the process that fired the probe. Destructive."""

    field: int
    """The signal's number."""


@record
class Stop:
    """``stop()``: stop the process that fired the probe. Destructive."""


@record
class Panic:
    """``panic()``: panic the guest's kernel. The consumer does nothing. Destructive."""


@record
class Breakpoint:
    """``breakpoint()``: the consumer does nothing. Destructive."""


@record
class Chill:
    """``chill(ns)``: wait, for at most half a second of each second. Destructive."""

    field: int
    """Nanoseconds."""


@record
class Exit:
    """``exit(status)``: end tracing when the consumer meets it."""

    field: int
    """The exit status."""


@record
class Default:
    """The default action of an empty clause: print the probe's line, and nothing more."""


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
        *(TraceAction, Printf, Printa, Clear, Trunc, Normalize, Denormalize, Stack, SymbolAction, Tracemem, Print),
        *(Speculate, Setopt, System, Freopen, Ftruncate, Exit, Default),
    )
)
"""The actions that DTrace records data for: when output is not quiet, a firing with one of them prints a line.

The others (``commit discard raise stop panic breakpoint chill``) print nothing by themselves.
"""


@record
class RecordPlan:
    """The record of one clause."""

    fields: tuple[RecordField, ...]
    """All fields, by offset."""
    actions: tuple[Action, ...]
    """All actions, in the order of the clause."""
    size: int
    """Bytes of all fields, padded to 8, without the header."""

    @property
    def shown(self) -> bool:
        """True when a record of this plan is a line of output (see :data:`RECORDING`)."""
        return any(type(action) in RECORDING for action in self.actions)


def field_layout(items: list[tuple[int, FieldKind, str]]) -> tuple[tuple[RecordField, ...], int]:
    """Place fields one after another: integers aligned to their size, all others to 8 bytes.

    ``items``: size in bytes, kind and detail of each field. Returns the fields, and the bytes of all of them, padded to
    a multiple of 8.
    """
    fields: list[RecordField] = []
    offset = 0
    for size, kind, detail in items:
        align = max(size, 1) if kind in ("int", "uint", "probe") else 8
        offset = -(-offset // align) * align
        fields.append(RecordField(offset=offset, size=size, kind=kind, detail=detail))
        offset += size
    return tuple(fields), -(-offset // 8) * 8
