"""Reading and setting registers of the IR in assembly, wherever :mod:`probekit.codegen.values` has put them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from probekit.codegen.context import ARG_FRAME, FRAME_RAX, FRAME_STACK_ARGS, Context, ProbeKind
from probekit.codegen.values import Values
from probekit.errors import UnsupportedError
from probekit.ir.ops import Arg, Builtin, Reg

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
    """The registers of one clause. ``held``: the one whose value is in ``rax`` now, if any.

    ``kind``: what the probed sites are, for the arguments.
    """

    values: Values
    context: Context
    kind: ProbeKind
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
        match self.values.constants.get(reg, self.values.fetched.get(reg)):
            case None:
                yield f"mov {into}, {self.slot(reg)}"
            case bytes() as text:
                yield f"mov {into}, {self.context.strings + self.context.constants[text]:#x}"
            case int() as value:
                yield f"mov {into}, {value & _MASK:#x}"
            case Arg(index=index):
                place = self._argument(index)
                yield f"mov {into}, {place if place is not None else 0}"
            case Builtin(name=name):
                yield from self._task_fact(into, name)

    def _argument(self, index: int) -> str | None:
        """Where ``argN`` is; None where it is always 0. At a return (FBT), arg1 is the returned value."""
        if self.kind == "return":
            return f"qword ptr [rbp + {FRAME_RAX}]" if index == 1 else None
        place = ARG_FRAME[index] if index < len(ARG_FRAME) else FRAME_STACK_ARGS + _WORD * (index - len(ARG_FRAME))
        return f"qword ptr [rbp + {place}]" if place >= 0 else f"qword ptr [rbp - {-place}]"

    def _task_fact(self, into: str, name: str) -> Iterator[str]:
        task = self.context.task
        if task is None:
            raise UnsupportedError(
                f"{name} needs the kernel's type information, which this guest does not have",
                feature=name,
                hint="its kernel was built without CONFIG_DEBUG_INFO_BTF",
            )
        if name == "cpu":
            yield f"movsxd {into}, dword ptr gs:[{task.cpu:#x}]"
            return
        yield f"mov {into}, qword ptr gs:[{task.current:#x}]"
        match name:
            case "pid":
                yield f"movsxd {into}, dword ptr [{into} + {task.tgid:#x}]"
            case "tid":
                yield f"movsxd {into}, dword ptr [{into} + {task.pid:#x}]"
            case "execname":
                yield f"add {into}, {task.comm:#x}"
            case _:
                raise UnsupportedError(f"{name} is not implemented in the guest engine", feature=name)

    def fact(self, name: str) -> Iterator[str]:
        """``rax`` = a fact of the current task."""
        return self._task_fact("rax", name)

    def argument(self, index: int) -> Iterator[str]:
        """``rax`` = ``argN``."""
        place = self._argument(index)
        yield f"mov rax, {place if place is not None else 0}"

    def right(self, instruction: str, reg: Reg) -> Iterator[str]:
        """``instruction rax, reg``; may spoil ``rcx``."""
        value, fetched = self.constant(reg), self.values.fetched.get(reg)
        if value is not None:
            yield f"{instruction} {'rax, ' if instruction == 'imul' else ''}rax, {value:#x}"
        elif isinstance(fetched, Arg) and (place := self._argument(fetched.index)) is not None:
            yield f"{instruction} rax, {place}"
        elif reg in self.values.slots:
            yield f"{instruction} rax, {self.slot(reg)}"
        else:
            yield from self.load("rcx", reg)
            yield f"{instruction} rax, rcx"

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
