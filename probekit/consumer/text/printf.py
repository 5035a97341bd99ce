r"""Renders a parsed :class:`Format` with the recorded arguments, as ``printf()`` of C and DTrace does.

    Format "%-8s|%5d|%x"  arguments "bash", int32 -1, int16 -1   ->  "bash    |   -1|ffff"

``%d``, ``%u`` and ``%x`` use the argument's own width; a length modifier has no effect. Width and precision count
bytes, as in C, so text that is not ASCII takes fewer columns. The compiler has checked the arguments. An argument that
still does not fit its conversion is printed by its own type, and nothing here raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from probekit.buffers.formats import Conversion, Format
from probekit.consumer.events import (
    GuestText,
    Piece,
    Printed,
    StackFrames,
    SymbolName,
    TraceBytes,
    TraceInt,
    TraceString,
)
from probekit.consumer.symbols import Symbols
from probekit.consumer.text.strings import c_escape, cut, decode, padded, raw_byte
from probekit.records import record

if TYPE_CHECKING:
    from datetime import tzinfo

__all__ = ("DEFAULT_CONTEXT", "MAX_STAR", "STACK_INDENT", "Argument", "FormatContext", "convert", "render")

Argument = TraceInt | TraceString | TraceBytes | StackFrames | SymbolName

STACK_INDENT = 14
"""The default number of columns before a frame (option ``stackindent``)."""

MAX_STAR = 4096
"""The most columns that ``%*d`` may ask for; the guest supplies that number."""

_NANOSECONDS = 1_000_000_000


@record
class FormatContext:
    """Symbols and settings that some conversions use."""

    symbols: Symbols = Symbols()
    """Names the addresses of ``%a``."""
    zone: tzinfo | None = None
    """The time zone of dates; None for the local one."""
    zoom: bool = False
    """Whether the longest bar of a histogram fills its columns (option ``aggzoom``)."""
    indent: int = STACK_INDENT
    """The number of columns before a frame of ``%k`` (option ``stackindent``)."""


@record
class _Spec:
    """A conversion in which each ``*`` is replaced by its number."""

    flags: str
    width: int
    precision: int | None
    letter: str

    def pad(self, text: str) -> str:
        """Return the text in its column."""
        return padded(text, self.width, left="-" in self.flags)


DEFAULT_CONTEXT = FormatContext()
"""The context without symbols, with dates in local time."""


def render(form: Format, arguments: Sequence[Argument], context: FormatContext = DEFAULT_CONTEXT) -> Printed:
    """Return the printed text. Extra arguments are ignored, a missing one is printed as ``(missing)``."""
    left = iter(arguments)
    pieces: list[Piece] = []
    for part in form.parts:
        piece: Piece = part if isinstance(part, str) else convert(part, left, context)
        if pieces and isinstance(piece, str) and isinstance(pieces[-1], str):
            pieces[-1] += piece
        elif piece:
            pieces.append(piece)
    return Printed(tuple(pieces))


def convert(conversion: Conversion, left: Iterator[Argument], context: FormatContext = DEFAULT_CONTEXT) -> Piece:
    """Print one conversion. Its ``*`` and its value are taken from ``left``."""
    if conversion.letter == "%":
        return "%"
    spec = _fill(conversion, left)
    argument = next(left, None)
    match argument:
        case None:
            return "(missing)"
        case TraceString(text=text):
            return GuestText(_string(spec, text))
        case SymbolName(text=text):
            return GuestText(spec.pad(text))
        case TraceBytes(data=data):
            return GuestText(_string(spec, decode(data)))
        case StackFrames(frames=frames):
            return GuestText(_stack(spec, frames, context))
    if spec.letter in _INTEGERS:
        return _integer(spec, argument)
    special = _SPECIALS.get(spec.letter)
    if special is not None:
        return special(spec, argument, context)
    return spec.pad(str(argument.value))


def _stack(spec: _Spec, frames: Sequence[str], context: FormatContext) -> str:
    """Print a stack for ``%k``, a frame on each line; with ``-`` the width is the indentation."""
    indent = spec.width if "-" in spec.flags and spec.width else context.indent
    width = 0 if "-" in spec.flags else spec.width
    return "\n" + "".join(f"{'':{indent}}{frame:>{width}}\n" for frame in frames)


def _fill(conversion: Conversion, left: Iterator[Argument]) -> _Spec:
    """Replace each ``*`` by the next argument. A negative width means left-justified, a negative precision none."""
    flags, width, precision = conversion.flags, conversion.width or 0, conversion.precision
    if conversion.star_width:
        width = _star(left)
        if width < 0:
            flags, width = flags + "-", -width
    if conversion.star_precision:
        precision = _star(left)
    # DTrace passes a precision to printf(3) only when it is above 0.
    precision = precision if precision is not None and precision > 0 else None
    return _Spec(flags=flags, width=width, precision=precision, letter=conversion.letter)


def _star(left: Iterator[Argument]) -> int:
    argument = next(left, None)
    value = argument.value if isinstance(argument, TraceInt) else 0
    return max(-MAX_STAR, min(value, MAX_STAR))


def _string(spec: _Spec, text: str) -> str:
    if spec.letter in "SC":
        text = c_escape(text)
    return spec.pad(text if spec.precision is None else cut(text, spec.precision))


# For each letter: the base, whether it is signed, and the prefix of the # flag.
_INTEGERS: dict[str, tuple[int, bool, str]] = {
    "d": (10, True, ""),
    "i": (10, True, ""),
    "u": (10, False, ""),
    "o": (8, False, ""),
    "x": (16, False, "0x"),
    "X": (16, False, "0X"),
    "p": (16, False, "0x"),
}
_DIGITS = {8: "o", 10: "d", 16: "x"}


def _reinterpret(argument: TraceInt, *, signed: bool) -> int:
    """Return the value to print: signed for ``%d`` of a signed argument, else unsigned at the argument's width."""
    value = argument.value & ((1 << argument.bits) - 1)
    return value - (1 << argument.bits) if signed and argument.signed and value >> (argument.bits - 1) else value


def _integer(spec: _Spec, argument: TraceInt) -> str:
    base, signed, alternate = _INTEGERS[spec.letter]
    value = _reinterpret(argument, signed=signed)
    digits = format(abs(value), _DIGITS[base])
    if spec.letter == "X":
        digits = digits.upper()
    if spec.precision is not None:
        digits = digits.zfill(spec.precision)
    if "'" in spec.flags and base == 10:
        digits = _grouped(digits)
    if "#" in spec.flags and base == 8 and not digits.startswith("0"):
        digits = "0" + digits
    prefix = _sign(spec, value) if signed else alternate if "#" in spec.flags and value else ""
    if "0" in spec.flags and "-" not in spec.flags and spec.precision is None:
        digits = digits.zfill(spec.width - len(prefix))
    return spec.pad(prefix + digits)


def _sign(spec: _Spec, value: int) -> str:
    if value < 0:
        return "-"
    return "+" if "+" in spec.flags else " " if " " in spec.flags else ""


def _grouped(digits: str) -> str:
    head = len(digits) % 3
    groups = [digits[:head]] if head else []
    return ",".join(groups + [digits[i : i + 3] for i in range(head, len(digits), 3)])


def _character(spec: _Spec, argument: TraceInt, _: FormatContext) -> Piece:
    return GuestText(spec.pad(raw_byte(argument.value & 0xFF)))


def _escaped_character(spec: _Spec, argument: TraceInt, _: FormatContext) -> Piece:
    code = argument.value & 0xFF
    return spec.pad(c_escape(chr(code)) if code < 0x80 else f"\\{code:03o}")


def _symbol(spec: _Spec, argument: TraceInt, context: FormatContext) -> Piece:
    return GuestText(spec.pad(context.symbols.address(argument.value & ((1 << argument.bits) - 1))))


def _user_symbol(spec: _Spec, argument: TraceInt, _: FormatContext) -> Piece:
    return spec.pad(f"0x{argument.value & ((1 << argument.bits) - 1):x}")


def _port(spec: _Spec, argument: TraceInt, _: FormatContext) -> Piece:
    """Print a TCP port for ``%P``, by its service name if it has one. The value is in network byte order."""
    import socket

    port = int.from_bytes((argument.value & 0xFFFF).to_bytes(2, "little"), "big")
    try:
        return spec.pad(socket.getservbyport(port))
    except OSError:
        return spec.pad(str(port))


def _time(form: str) -> Callable[[_Spec, TraceInt, FormatContext], Piece]:
    def convert(spec: _Spec, argument: TraceInt, context: FormatContext) -> Piece:
        from datetime import datetime  # slow to import

        try:
            moment = datetime.fromtimestamp(argument.value // _NANOSECONDS, context.zone)
            return spec.pad((moment if context.zone else moment.astimezone()).strftime(form))
        except (OverflowError, ValueError, OSError):  # the guest's clock can have any value
            return spec.pad(str(argument.value))

    return convert


_SPECIALS: dict[str, Callable[[_Spec, TraceInt, FormatContext], Piece]] = {
    "c": _character,
    "C": _escaped_character,
    "a": _symbol,
    "A": _user_symbol,
    "P": _port,
    "Y": _time("%Y %b %e %H:%M:%S"),
    "T": _time("%a, %d %b %Y %H:%M:%S %Z"),
}
