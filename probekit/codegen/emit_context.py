"""What the code of one operation is made with, and small pieces that many of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from probekit.buffers.layout import FaultKind
from probekit.codegen.context import Context
from probekit.codegen.operands import Operands
from probekit.codegen.reg_alloc import LEADING_ARGUMENTS, ProbeKind
from probekit.codegen.runtime.registry import Routines
from probekit.ir.ops import Reg

__all__ = ("EmitContext",)


@dataclass(frozen=True, slots=True)
class EmitContext:
    """What the code of every operation of one clause shares."""

    context: Context
    operands: Operands
    routines: Routines
    unique: Callable[[], str]
    """Makes a new label."""

    fault: Callable[[FaultKind | None], str]
    """The label where the clause ends with a fault of this operation.

    There ``rax`` is the word at fault, and ``edx`` its kind when none was given.
    """

    @property
    def kind(self) -> ProbeKind:
        """What the probed sites are."""
        return self.operands.kind

    @property
    def unwinder(self) -> str:
        """The routine that walks the stack from where this code stands."""
        return "stack_called" if LEADING_ARGUMENTS.get(self.operands.kind) else "stack"

    def call(self, name: str) -> str:
        """A call of a shared routine."""
        return f"call {self.routines(name):#x}"

    def scratch(self, offset: int) -> str:
        """A place in the scratch memory."""
        return self.context.in_scratch(offset)

    def string_place(self, dst: Reg, into: str = "rdi") -> Iterator[str]:
        """``into`` = where the string that this operation makes belongs."""
        values = self.operands.values
        yield f"lea {into}, {self.scratch(self.context.scratch.texts + values.all_texts[dst])}"

    def string_made(self, dst: Reg) -> Iterator[str]:
        """The string is at its place: ``dst`` is its address, if anybody needs that in a register."""
        if dst not in self.operands.values.texts:
            yield from self.string_place(dst, "rax")
        yield from self.operands.set(dst)
