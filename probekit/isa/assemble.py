"""Assemble text to bytes with keystone, and check what it made.

keystone 0.9.2 emits wrong bytes without an error: an out-of-reach `call` wraps,
`[0xffffffff82001000]` becomes RIP-relative to another place, wide immediates
lose their upper half, `nop dword ptr [rax+rax]` is not a nop. So probekit parses the text
itself (:mod:`probekit.isa.asm_syntax`), has it assembled with plain numbers at the
real address, and decodes every instruction again with iced and compares:
operation, prefixes, registers, memory operands, immediates, branch targets. ::

    assemble("call 0xffffffff00000000", 0xffffffff81000000)    AssembleError
    assemble("inc qword ptr [rax + 8]", 0)                      48 ff 40 08

Never set keystone's ``sym_resolver``: it moves every PC-relative target by 4
and turns the radix to 16.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any, assert_never

from iced_x86 import Code, Decoder, Instruction

from probekit.errors import InternalError
from probekit.isa.asm_syntax import AssembleError, Data, Imm, LabelDef, LabelRef, Line, Statement, parse, render
from probekit.isa.compare import mismatch

__all__ = ("AssembleError", "assemble")

_MASK64 = (1 << 64) - 1

# The bytes of what keystone does not know. They are decoded and compared like everything else.
_BYTES = {
    "endbr64": b"\xf3\x0f\x1e\xfa",  # endbr64
    "serialize": b"\x0f\x01\xe8",  # serialize
}


@lru_cache(maxsize=1)
def _keystone() -> tuple[Any, type[Exception]]:
    # Imported here, as not every command assembles; through importlib, as a type checker sees none of its exports.
    library: Any = import_module("keystone")
    return library.Ks(library.KS_ARCH_X86, library.KS_MODE_64), library.KsError


def assemble(text: str, addr: int) -> bytes:
    """Return the bytes of ``text`` for the address ``addr``. :mod:`probekit.isa.asm_syntax` has the syntax.

    Raises :class:`AssembleError` for text that is not understood or does not assemble to itself.
    """
    lines = parse(text)
    _check_labels(lines)
    code = _encode("\n".join(_for_keystone(line) for line in lines), addr)
    if code is None:
        raise _refused_statement(lines, addr)
    _Verifier(code, addr).run(lines)
    return code


def _for_keystone(line: Line) -> str:
    if isinstance(line.item, Statement) and line.item.mnemonic in _BYTES:
        return f".byte {', '.join(map(hex, _BYTES[line.item.mnemonic]))}"
    return render(line.item)


def _encode(text: str, addr: int) -> bytes | None:
    if not text:
        return b""
    engine, refused = _keystone()
    try:
        code, _ = engine.asm(text, addr, as_bytes=True)
    except refused:
        return None
    return code or b""


def _refused_statement(lines: list[Line], addr: int) -> AssembleError:
    # keystone does not say which statement it refused: try each alone, with numbers for its labels.
    for line in lines:
        if isinstance(line.item, Statement):
            operands = tuple(Imm(addr) if isinstance(o, LabelRef) else o for o in line.item.operands)
            alone = Line(line.number, line.text, Statement(line.item.mnemonic, line.item.prefixes, operands))
            if _encode(_for_keystone(alone), addr) is None:
                return AssembleError("keystone does not know it", text=line.text, line=line.number)
    return AssembleError("keystone refuses the block, though each of its statements alone is right")


def _check_labels(lines: list[Line]) -> None:
    defined: set[str] = set()
    for line in lines:
        if isinstance(line.item, LabelDef):
            if line.item.name in defined:
                raise AssembleError("label defined twice", text=line.text, line=line.number)
            defined.add(line.item.name)
    for line in lines:
        names: list[str] = []
        match line.item:
            case Statement(operands=operands):
                names = [name for o in operands if (name := getattr(o, "label", None) or _ref(o))]
            case Data(items=items):
                names = [name for o in items if (name := _ref(o))]
            case LabelDef():
                pass
            case _:
                assert_never(line.item)
        for name in names:
            if name not in defined:
                raise AssembleError(f"no label {name!r} in this block", text=line.text, line=line.number)


def _ref(operand: object) -> str:
    return operand.name if isinstance(operand, LabelRef) else ""


@dataclass(slots=True)
class _Verifier:
    """Walks the code in step with the text, in two rounds. The first one only finds where the labels are."""

    code: bytes
    addr: int
    labels: dict[str, int] = field(default_factory=dict)

    def run(self, lines: list[Line]) -> None:
        decoded = self._decode(lines)
        for line, insn in decoded:
            if isinstance(line.item, Statement):
                if not isinstance(insn, Instruction):
                    raise InternalError("a statement was decoded as data")
                reason = mismatch(line.item, insn, self.labels)
            elif isinstance(line.item, Data):
                reason = self._data_mismatch(line.item, insn)
            else:
                continue
            if reason is not None:
                raise AssembleError(reason, text=line.text, line=line.number, code=self._bytes(insn))

    def _decode(self, lines: list[Line]) -> list[tuple[Line, Any]]:
        """Return each line with its Instruction, or with (offset, size) for data."""
        decoder = Decoder(64, self.code, ip=self.addr)
        found: list[tuple[Line, Any]] = []
        for line in lines:
            item = line.item
            if isinstance(item, LabelDef):
                self.labels[item.name] = self.addr + decoder.position & _MASK64
            elif isinstance(item, Data):
                span = (decoder.position, item.width * len(item.items))
                if sum(span) > len(self.code):
                    raise AssembleError("the code ends too early", text=line.text, line=line.number)
                found.append((line, span))
                decoder.position = sum(span)
                decoder.ip = self.addr + sum(span)
            else:
                insn = decoder.decode()
                if insn.code == Code.INVALID:
                    raise AssembleError(
                        "assembled to something that is not an instruction", text=line.text, line=line.number
                    )
                found.append((line, insn))
        if decoder.position != len(self.code):
            raise AssembleError("assembled to more than was asked", code=self.code[decoder.position :][:16])
        return found

    def _bytes(self, insn: Any) -> bytes:
        start, size = insn if isinstance(insn, tuple) else (insn.ip - self.addr, insn.len)
        return self.code[start : start + size]

    def _data_mismatch(self, item: Data, span: tuple[int, int]) -> str | None:
        bits = item.width * 8
        want = b""
        for value in item.items:
            number = value.value if isinstance(value, Imm) else self.labels[value.name]
            if not -(1 << bits - 1) <= number < 1 << bits:
                return f"{number:#x} does not fit {item.width} bytes"
            want += (number & (1 << bits) - 1).to_bytes(item.width, "little")
        return None if self._bytes(span) == want else "assembled to other data than was asked"
