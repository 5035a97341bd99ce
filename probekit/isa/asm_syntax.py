"""Parse the assembly text that :mod:`probekit.isa.assemble` accepts.

Intel syntax, one statement per line or ``;``, ``#`` begins a comment::

    again:  mov rax, qword ptr gs:[0x1f000]   # this CPU's block
            inc qword ptr [rax + 8]; jnz again

    Statement("mov", (), (Reg("rax"), Mem(size=8, segment="gs", disp=0x1f000)))

Operands are registers, numbers, labels and memory. Everything is parsed here,
before keystone sees it, so that the result can be compared with the text
and not with keystone's reading of it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from iced_x86 import Register

from probekit.errors import InternalError
from probekit.records import record

__all__ = (
    "AssembleError",
    "Data",
    "Imm",
    "LabelDef",
    "LabelRef",
    "Line",
    "Mem",
    "Operand",
    "Reg",
    "Statement",
    "parse",
    "render",
)


class AssembleError(InternalError):
    """Our assembly text cannot be assembled, or the assembler made wrong bytes of it."""

    def __init__(self, reason: str, *, text: str = "", line: int = 0, code: bytes = b"") -> None:
        where = f"line {line}: {text!r}: " if text else ""
        super().__init__(f"cannot assemble {where}{reason}" + (f" ({code.hex(' ')})" if code else ""))
        self.reason = reason
        """What is wrong."""
        self.text = text
        """The statement; empty when no single one is wrong."""
        self.line = line
        """The statement's line, from 1 on; 0 when no single one is wrong."""
        self.code = code
        """The bytes that were refused; empty when there are none."""


@record
class Reg:
    """A register operand."""

    name: str
    """Its name in lower case."""


@record
class Imm:
    """A number."""

    value: int
    """The number; negative as it is written."""


@record
class LabelRef:
    """A label as an operand."""

    name: str
    """The label's name."""


@record
class Mem:
    """A memory operand."""

    size: int = 0
    """Bytes; 0: the text does not say."""
    segment: str = ""
    """``fs``, ``gs`` and so on; empty without a segment override."""
    base: str = ""
    """The base register; empty without one."""
    index: str = ""
    """The index register; empty without one."""
    scale: int = 1
    """The factor of the index register."""
    disp: int = 0
    """The displacement, signed as it is written."""
    label: str = ""
    """Only with base ``rip``, and then without displacement."""


Operand = Reg | Imm | LabelRef | Mem


@record
class Statement:
    """One instruction."""

    mnemonic: str
    """The operation, such as ``mov``."""
    prefixes: tuple[str, ...]
    """``lock``, ``rep``, ``repe``, ``repne``, as written."""
    operands: tuple[Operand, ...]
    """The operands, in Intel's order: the destination first."""


@record
class LabelDef:
    """A label before a statement: ``again:``."""

    name: str
    """The label's name."""


@record
class Data:
    """A directive ``.byte``, ``.word``, ``.long`` or ``.quad``."""

    width: int
    """Bytes of each number or label."""
    items: tuple[Imm | LabelRef, ...]
    """The numbers and labels, in order."""


@record
class Line:
    """One item of the text, with where it was written."""

    number: int
    """Its line, from 1 on."""
    text: str
    """The item as it was written."""
    item: Statement | LabelDef | Data
    """The parsed item."""


_MASK64 = (1 << 64) - 1
_SIZES = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "xmmword": 16}
_SIZE_WORDS = {size: word for word, size in _SIZES.items()}
_DIRECTIVES = {".byte": 1, ".word": 2, ".long": 4, ".quad": 8}
_DIRECTIVE_WORDS = {width: word for word, width in _DIRECTIVES.items()}
_PREFIXES = frozenset({"lock", "rep", "repe", "repz", "repne", "repnz"})
_REGISTERS = frozenset(name.lower() for name, value in vars(Register).items() if isinstance(value, int))
_NAME = re.compile(r"[A-Za-z_.$][\w.$]*\Z")
_NUMBER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|[1-9][0-9]*|0)\Z")
_MEMORY = re.compile(r"(?:(\w+)\s+ptr\s+)?(?:(\w+)\s*:\s*)?\[([^\[\]]*)\]\Z")
_TERM = re.compile(r"([-+]?)\s*((?:[-+]\s*)?[\w.$]+(?:\s*\*\s*[\w.$]+)?)\s*")


def parse(text: str) -> list[Line]:
    """Return all statements of ``text``. Raises :class:`AssembleError` for the first that is not understood."""
    lines: list[Line] = []
    for number, row in enumerate(text.split("\n"), 1):
        for piece in row.partition("#")[0].split(";"):
            rest = piece.strip()
            while rest:
                label, colon, after = rest.partition(":")
                if not colon or not _NAME.match(label) or label.lower() in _REGISTERS:
                    break
                lines.append(Line(number, rest, LabelDef(label)))
                rest = after.strip()
            if rest:
                try:
                    lines.append(Line(number, rest, _statement(rest)))
                except ValueError as error:
                    raise AssembleError(str(error), text=rest, line=number) from None
    return lines


@lru_cache(maxsize=4096)
def _statement(text: str) -> Statement | Data:
    # Clause bodies repeat the same few statements many times.
    word, _, rest = text.partition(" ")
    word = word.lower()
    if word.startswith("."):
        return _data(word, rest)
    prefixes: list[str] = []
    while word in _PREFIXES:
        prefixes.append(word)
        word, _, rest = rest.strip().partition(" ")
        word = word.lower()
    if not word.isalnum():
        raise ValueError(f"{word!r} is not a mnemonic")
    rest = rest.strip()
    operands = tuple(_operand(part.strip()) for part in rest.split(",")) if rest else ()
    return Statement(word, tuple(prefixes), operands)


def _data(word: str, rest: str) -> Data:
    if word not in _DIRECTIVES:
        raise ValueError(f"directive {word!r} is not supported")
    items: list[Imm | LabelRef] = []
    for part in rest.split(","):
        item = _operand(part.strip())
        if not isinstance(item, Imm | LabelRef):
            raise ValueError(f"{part.strip()!r} is neither a number nor a label")
        items.append(item)
    return Data(_DIRECTIVES[word], tuple(items))


@lru_cache(maxsize=4096)
def _operand(text: str) -> Operand:
    lower = text.lower()
    if lower in _REGISTERS:
        return Reg(lower)
    if _NUMBER.match(text):
        return Imm(_number(text))
    if "[" in text:
        return _memory(text)
    if _NAME.match(text):
        return LabelRef(text)
    raise ValueError(f"operand {text!r} is not understood")


def _number(text: str) -> int:
    value = int(text, 0)
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"{text} does not fit 64 bits")
    return value


def _memory(text: str) -> Mem:
    match = _MEMORY.match(text)
    if match is None:
        raise ValueError(f"memory operand {text!r} is not understood")
    size_word, segment, inside = match.groups()
    if size_word is not None and size_word.lower() not in _SIZES:
        raise ValueError(f"{size_word!r} is not an operand size")
    size = _SIZES[size_word.lower()] if size_word else 0
    base = index = label = ""
    scale, disp = 1, 0
    position = 0
    while position < len(inside.strip()) or not position:
        term = _TERM.match(inside.strip(), position)
        if term is None or (position and not term.group(1)):
            raise ValueError(f"memory operand {text!r} is not understood")
        position = term.end()
        sign, body = term.group(1), re.sub(r"\s", "", term.group(2))
        if _NUMBER.match(body):
            disp += -_number(body) if sign == "-" else _number(body)
            continue
        if sign == "-":
            raise ValueError(f"only a number can be subtracted in {text!r}")
        name, times, factor = body.lower().partition("*")
        if name not in _REGISTERS:
            if times or label or not _NAME.match(body):
                raise ValueError(f"{body!r} in {text!r} is not understood")
            label = body
        elif times or base:
            if index:
                raise ValueError(f"too many registers in {text!r}")
            index, scale = name, int(factor) if times else 1
        else:
            base = name
    if label and (base != "rip" or index or disp):
        raise ValueError(f"a label is addressed as [rip + label] only, not {text!r}")
    return Mem(size, (segment or "").lower(), base, index, scale, disp, label)


def render(item: Statement | LabelDef | Data) -> str:
    """Spell the statement for keystone: numbers in hex, and one spelling for each thing."""
    if isinstance(item, LabelDef):
        return f"{item.name}:"
    if isinstance(item, Data):
        return f"{_DIRECTIVE_WORDS[item.width]} {', '.join(map(_render_operand, item.items))}"
    words = " ".join((*item.prefixes, item.mnemonic))
    operands = item.operands if _in_accumulator(item) else tuple(map(_short_absolute, item.operands))
    return f"{words} {', '.join(map(_render_operand, operands))}".rstrip()


def _in_accumulator(item: Statement) -> bool:
    # mov rax, [64-bit address] has an encoding of its own, which takes the whole address.
    return item.mnemonic in ("mov", "movabs") and any(
        isinstance(o, Reg) and o.name in ("al", "ax", "eax", "rax") for o in item.operands
    )


def _short_absolute(operand: Operand) -> Operand:
    # keystone makes [0xffffffff82001000] RIP-relative to a wrong place, and [0x82001000] the right bytes:
    # 8b 0c 25 00 10 00 82      mov ecx, [disp32], which the CPU extends with its sign
    if isinstance(operand, Mem) and not operand.base and not operand.index and not operand.label:
        disp = operand.disp & _MASK64
        if disp >= 0xFFFFFFFF80000000:
            return replace(operand, disp=disp & 0xFFFFFFFF)
    return operand


@lru_cache(maxsize=4096)
def _render_operand(operand: Operand) -> str:
    match operand:
        case Reg(name) | LabelRef(name):
            return name
        case Imm(value):
            return f"{value:#x}"
    parts = [operand.base] if operand.base else []
    if operand.index:
        parts.append(f"{operand.index}*{operand.scale}")
    if operand.label:
        parts.append(operand.label)
    inside = "+".join(parts)
    if operand.disp or not parts:
        inside += f"{operand.disp:+#x}" if parts else f"{operand.disp:#x}"
    size = f"{_SIZE_WORDS[operand.size]} ptr " if operand.size else ""
    segment = f"{operand.segment}:" if operand.segment else ""
    return f"{size}{segment}[{inside}]"
