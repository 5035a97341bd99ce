"""Hold what the code of every operation of one clause is made with, and small pieces that many operations share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from probekit.buffers.layout import FaultKind
from probekit.codegen.context import CodegenContext
from probekit.codegen.operands import OperandEmitter
from probekit.codegen.reg_alloc import LEADING_ARGUMENTS, FiringKind
from probekit.codegen.runtime.registry import AddressOf
from probekit.ir.ops import Reg

__all__ = ("EmitContext",)


@dataclass(frozen=True, slots=True)
class EmitContext:
    """What the code of every operation of one clause shares."""

    context: CodegenContext
    """The facts of the enabling and of the guest."""

    operands: OperandEmitter
    """Loads and sets the registers of the IR."""

    address_of: AddressOf
    """Gives the address of a shared routine."""

    new_label: Callable[[], str]
    """Makes a label that nothing else has."""

    fault_label: Callable[[FaultKind | None], str]
    """Gives the label where the clause ends with a fault of the operation at hand.

    The word at fault must be in ``rax`` there. The kind of the fault must be in ``edx`` when None was given for it.
    """

    @property
    def kind(self) -> FiringKind:
        """What the probed sites are."""
        return self.operands.kind

    @property
    def unwind_routine(self) -> str:
        """The routine that walks the stack from where this code runs."""
        return "stack_at_hook" if LEADING_ARGUMENTS.get(self.operands.kind) else "stack"

    def call_routine(self, name: str) -> str:
        """Call a shared routine."""
        return f"call {self.address_of(name):#x}"

    def scratch_operand(self, offset: int) -> str:
        """Return the memory operand of a place in the scratch memory, without its size."""
        return self.context.in_scratch(offset)

    def load_string_destination(self, dst: Reg, into: str = "rdi") -> Iterator[str]:
        """Load ``into`` with the address where the string that this operation makes has to be stored."""
        allocation = self.operands.allocation
        yield f"lea {into}, {self.scratch_operand(self.context.scratch.strings + allocation.all_string_slots[dst])}"

    def set_string_result(self, dst: Reg) -> Iterator[str]:
        """Set ``dst`` to the address of the finished string, if a later operation reads that address."""
        if dst not in self.operands.allocation.string_slots:
            yield from self.load_string_destination(dst, "rax")
        yield from self.operands.set_from_rax(dst)
