"""Load and set the IR's registers in assembly, wherever :mod:`probekit.codegen.reg_alloc` has put them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from probekit.codegen.context import CodegenContext
from probekit.codegen.frame import ARG_FRAME, FRAME_CALLER, FRAME_RAX, FRAME_STACK_ARGS
from probekit.codegen.reg_alloc import LEADING_ARGUMENTS, RETURNS, FiringKind, RegAllocation
from probekit.errors import UnsupportedError
from probekit.ir.ops import LoadArg, LoadBuiltin, Reg
from probekit.kernel.syscalls import COMPAT_ARGS, SYSCALL_ARGS

__all__ = ("OperandEmitter", "fits_immediate")

_LOWER_HALVES = {f"r{n}x": f"e{n}x" for n in "abcd"} | {f"r{n}": f"e{n}" for n in ("si", "di")}
_LOWER_HALVES |= {f"r{n}": f"r{n}d" for n in range(8, 12)}

_MASK = (1 << 64) - 1
_WORD = 8


def fits_immediate(value: int) -> bool:
    """Return True when an instruction can hold ``value`` as a sign-extended 32-bit immediate."""
    return -(1 << 31) <= value < 1 << 31


def _known(offset: int | None, name: str) -> int:
    if offset is None:
        raise UnsupportedError(f"this kernel has no {name} where it is looked for", feature=name)
    return offset


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


@dataclass(slots=True)
class OperandEmitter:
    """Writes the code that loads and sets the IR's registers of one clause."""

    allocation: RegAllocation
    """Where each register is."""
    context: CodegenContext
    """The facts of the enabling and of the guest."""
    kind: FiringKind
    """What the probed sites are: it decides where arguments are."""
    in_rax: Reg | None = None
    """The register whose value ``rax`` has now, if any."""

    def slot(self, reg: Reg) -> str:
        """Return the operand of a register that has a word in the frame."""
        return f"qword ptr [rsp + {self.allocation.slots[reg] * _WORD:#x}]"

    def string_operand(self, reg: Reg) -> str:
        """Return the memory operand of the string that an operation makes in ``reg``, without its size."""
        return self.context.in_scratch(self.context.scratch.strings + self.allocation.string_slots[reg])

    def immediate(self, reg: Reg) -> int | None:
        """Return the value of a register that is an integer constant and fits an instruction, else None."""
        value = self.allocation.constants.get(reg)
        return _signed(value) if isinstance(value, int) and fits_immediate(_signed(value)) else None

    def load_first(self, into: str, reg: Reg) -> Iterator[str]:
        """Load ``into`` with the register that an operation reads first: ``rax`` may have it already."""
        if self.in_rax == reg:
            if into != "rax":
                yield f"mov {into}, rax"
        else:
            yield from self.load(into, reg)

    def load(self, into: str, reg: Reg) -> Iterator[str]:
        """Load ``into`` with a register that an operation reads after its first one."""
        match self.allocation.constants.get(reg, self.allocation.rematerialized.get(reg)):
            case None if reg in self.allocation.string_slots:
                yield f"lea {into}, {self.string_operand(reg)}"
            case None:
                yield f"mov {into}, {self.slot(reg)}"
            case bytes() as string:
                yield f"mov {into}, {self.context.string_pool + self.context.pool_offsets[string]:#x}"
            case int() as value:
                yield f"mov {into}, {value & _MASK:#x}"
            case LoadArg(index=index):
                yield from self.load_argument(index, into)
            case LoadBuiltin(name=name):
                yield from self.load_fact(name, into)

    def _argument_operand(self, index: int) -> str | None:
        """Return the operand that ``argN`` is, or None where no word of the frame is.

        Where a function returns, its value is ``arg1``; where a system call returns, it is ``arg0`` as well.
        """
        if self.kind in RETURNS:
            return f"qword ptr [rbp + {FRAME_RAX}]" if index == 1 or (index == 0 and self.kind != "return") else None
        if self.kind in ("syscall", "syscall32"):
            return None
        index += LEADING_ARGUMENTS[self.kind]
        offset = ARG_FRAME[index] if index < len(ARG_FRAME) else FRAME_STACK_ARGS + _WORD * (index - len(ARG_FRAME))
        return f"qword ptr [rbp + {offset}]" if offset >= 0 else f"qword ptr [rbp - {-offset}]"

    def load_fact(self, name: str, into: str = "rax") -> Iterator[str]:
        """Load ``into`` with a built-in variable that a load or two fetch: mostly a fact of the current task.

        Raises :class:`UnsupportedError` where this kernel does not have it, or nothing is known of its types.
        """
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
                offset = task.uid if name == "uid" else task.gid
                yield f"mov {_LOWER_HALVES[into]}, dword ptr [{into} + {_known(offset, name):#x}]"
            case _:
                raise UnsupportedError(f"{name} is not implemented in the guest engine", feature=name)

    def load_argument(self, index: int, into: str = "rax") -> Iterator[str]:
        """Load ``into`` with ``argN``; with 0 where the probe has no such argument."""
        operand = self._argument_operand(index)
        if self.kind in ("syscall", "syscall32") and index < len(SYSCALL_ARGS):
            # The function's own argument points at the saved registers of user space.
            yield f"mov {into}, qword ptr [rbp + {ARG_FRAME[0]}]"
            if self.kind == "syscall32":
                # A 32-bit program's registers have 32 bits; this clears the upper half.
                yield f"mov {_LOWER_HALVES[into]}, dword ptr [{into} + {COMPAT_ARGS[index]:#x}]"
                return
            operand = f"qword ptr [{into} + {SYSCALL_ARGS[index]:#x}]"
        yield f"mov {into}, {operand if operand is not None else 0}"

    def apply(self, instruction: str, reg: Reg) -> Iterator[str]:
        """Write ``instruction rax, reg``. It may change ``rcx``."""
        value, fetched = self.immediate(reg), self.allocation.rematerialized.get(reg)
        if value is not None:
            yield f"{instruction} {'rax, ' if instruction == 'imul' else ''}rax, {value:#x}"
        elif isinstance(fetched, LoadArg) and (operand := self._argument_operand(fetched.index)) is not None:
            yield f"{instruction} rax, {operand}"
        elif reg in self.allocation.slots:
            yield f"{instruction} rax, {self.slot(reg)}"
        else:
            yield from self.load("rcx", reg)
            yield f"{instruction} rax, rcx"

    def store_to(self, operand: str, reg: Reg) -> Iterator[str]:
        """Set a word in memory to the register that an operation reads first. ``operand``: without its size."""
        value = self.immediate(reg)
        if value is not None:
            yield f"mov qword ptr {operand}, {value:#x}"
        else:
            yield from self.load_first("rax", reg)
            yield f"mov qword ptr {operand}, rax"

    def set_from_rax(self, dst: Reg) -> Iterator[str]:
        """Set a register to ``rax``."""
        if dst in self.allocation.slots:
            yield f"mov {self.slot(dst)}, rax"
        self.in_rax = None if dst in self.allocation.string_slots else dst
