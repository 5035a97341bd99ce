"""Reading and setting registers of the IR in assembly, wherever :mod:`probekit.codegen.reg_alloc` has put them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from probekit.codegen.context import Context
from probekit.codegen.frame import ARG_FRAME, FRAME_CALLER, FRAME_RAX, FRAME_STACK_ARGS
from probekit.codegen.reg_alloc import LEADING_ARGUMENTS, RETURNS, ProbeKind, Values
from probekit.errors import UnsupportedError
from probekit.ir.ops import Arg, Builtin, Reg
from probekit.kernel.syscalls import SYSCALL_ARGS

__all__ = ("Operands", "fits", "lower")

_LOW = {f"r{n}x": f"e{n}x" for n in "abcd"} | {f"r{n}": f"e{n}" for n in ("si", "di")}
_LOW |= {f"r{n}": f"r{n}d" for n in range(8, 12)}

_MASK = (1 << 64) - 1
_WORD = 8


def fits(value: int) -> bool:
    """True when an instruction can hold ``value`` as a sign-extended 32-bit immediate."""
    return -(1 << 31) <= value < 1 << 31


def lower(register: str) -> str:
    """The name of a register's lower 32 bits."""
    return _LOW[register]


def _known(offset: int | None, name: str) -> int:
    if offset is None:
        raise UnsupportedError(f"this kernel has no {name} where it is looked for", feature=name)
    return offset


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

    def text_place(self, reg: Reg) -> str:
        """The place of the string that an operation makes in ``reg``."""
        return self.context.in_scratch(self.context.scratch.texts + self.values.texts[reg])

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
            case None if reg in self.values.texts:
                yield f"lea {into}, {self.text_place(reg)}"
            case None:
                yield f"mov {into}, {self.slot(reg)}"
            case bytes() as text:
                yield f"mov {into}, {self.context.strings + self.context.constants[text]:#x}"
            case int() as value:
                yield f"mov {into}, {value & _MASK:#x}"
            case Arg(index=index):
                yield from self.argument(index, into)
            case Builtin(name=name):
                yield from self._task_fact(into, name)

    def _argument(self, index: int) -> str | None:
        """The operand that ``argN`` is; None where it is none. What is returned is arg1, of a system call arg0 too."""
        if self.kind in RETURNS:
            return f"qword ptr [rbp + {FRAME_RAX}]" if index == 1 or (index == 0 and self.kind != "return") else None
        if self.kind == "syscall":
            return None
        index += LEADING_ARGUMENTS[self.kind]
        place = ARG_FRAME[index] if index < len(ARG_FRAME) else FRAME_STACK_ARGS + _WORD * (index - len(ARG_FRAME))
        return f"qword ptr [rbp + {place}]" if place >= 0 else f"qword ptr [rbp - {-place}]"

    def _task_fact(self, into: str, name: str) -> Iterator[str]:
        if name == "caller":
            yield f"mov {into}, qword ptr [rbp + {FRAME_CALLER}]"
            return
        if name == "percpu_offset":
            yield f"mov {into}, qword ptr gs:[{_known(self.context.kernel.percpu_offset, name):#x}]"
            return
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
            case "curthread":
                pass
            case "pid":
                yield f"movsxd {into}, dword ptr [{into} + {task.tgid:#x}]"
            case "tid":
                yield f"movsxd {into}, dword ptr [{into} + {task.pid:#x}]"
            case "execname":
                yield f"add {into}, {task.comm:#x}"
            case "ppid":
                # With interrupts off no grace period ends, so neither the parent nor credentials go away.
                yield f"mov {into}, qword ptr [{into} + {_known(task.parent, name):#x}]"
                yield f"movsxd {into}, dword ptr [{into} + {task.tgid:#x}]"
            case "uid" | "gid":
                yield f"mov {into}, qword ptr [{into} + {_known(task.cred, name):#x}]"
                where = task.uid if name == "uid" else task.gid
                yield f"mov {_LOW[into]}, dword ptr [{into} + {_known(where, name):#x}]"
            case _:
                raise UnsupportedError(f"{name} is not implemented in the guest engine", feature=name)

    def fact(self, name: str) -> Iterator[str]:
        """``rax`` = a fact of the current task."""
        return self._task_fact("rax", name)

    def argument(self, index: int, into: str = "rax") -> Iterator[str]:
        """A register = ``argN``."""
        place = self._argument(index)
        if self.kind == "syscall" and index < len(SYSCALL_ARGS):
            # The function's own argument is where the registers of user space were saved.
            yield f"mov {into}, qword ptr [rbp + {ARG_FRAME[0]}]"
            place = f"qword ptr [{into} + {SYSCALL_ARGS[index]:#x}]"
        yield f"mov {into}, {place if place is not None else 0}"

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
        self.held = None if dst in self.values.texts else dst
