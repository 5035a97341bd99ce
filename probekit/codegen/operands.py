"""Reading and setting registers of the IR in assembly, wherever :mod:`probekit.codegen.values` has put them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from probekit.codegen.context import Context
from probekit.codegen.values import Values
from probekit.ir.ops import Reg

__all__ = ("Operands", "fits")

_MASK = (1 << 64) - 1
_WORD = 8


def fits(value: int) -> bool:
    """True when an instruction can hold ``value`` as a sign-extended 32-bit immediate."""
    return -(1 << 31) <= value < 1 << 31


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


@dataclass(slots=True)
class Operands:
    """The registers of one clause. ``held``: the one whose value is in ``rax`` now, if any."""

    values: Values
    context: Context
    held: Reg | None = None

    def slot(self, reg: Reg) -> str:
        """The operand of a register that has a word in the frame."""
        return f"qword ptr [rsp + {self.values.slots[reg] * _WORD:#x}]"

    def constant(self, reg: Reg) -> int | None:
        """The value of a register that is an integer constant and fits an instruction, else None."""
        value = self.values.constants.get(reg)
        return _signed(value) if isinstance(value, int) and fits(_signed(value)) else None

    def take(self, into: str, reg: Reg) -> Iterator[str]:
        """``into`` = the register that an op reads first: it may have been passed on in ``rax``."""
        if self.held == reg:
            if into != "rax":
                yield f"mov {into}, rax"
        else:
            yield from self.load(into, reg)

    def load(self, into: str, reg: Reg) -> Iterator[str]:
        """``into`` = a register that an op reads later."""
        match self.values.constants.get(reg):
            case None:
                yield f"mov {into}, {self.slot(reg)}"
            case bytes() as text:
                yield f"mov {into}, {self.context.strings + self.context.constants[text]:#x}"
            case value:
                yield f"mov {into}, {value & _MASK:#x}"

    def right(self, instruction: str, reg: Reg) -> Iterator[str]:
        """``instruction rax, reg``; spoils ``rcx`` when the register is a constant that no instruction holds."""
        value = self.constant(reg)
        if value is not None:
            yield f"{instruction} {'rax, ' if instruction == 'imul' else ''}rax, {value:#x}"
        elif reg in self.values.constants:
            yield from self.load("rcx", reg)
            yield f"{instruction} rax, rcx"
        else:
            yield f"{instruction} rax, {self.slot(reg)}"

    def store(self, place: str, reg: Reg) -> Iterator[str]:
        """A word in memory = the register that an op reads first."""
        value = self.constant(reg)
        if value is not None:
            yield f"mov qword ptr {place}, {value:#x}"
        else:
            yield from self.take("rax", reg)
            yield f"mov qword ptr {place}, rax"

    def set(self, dst: Reg) -> Iterator[str]:
        """A register = ``rax``."""
        if dst in self.values.slots:
            yield f"mov {self.slot(dst)}, rax"
        self.held = dst
