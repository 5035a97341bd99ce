"""Build the basic blocks of a clause. Labels are placed in order, so control only moves forward.

end = BlockLabel(); blocks.branch(r0, then, end); blocks.place(then); blocks.add(...); blocks.place(end)
"""

from __future__ import annotations

from probekit.errors import InternalError
from probekit.ir import ops
from probekit.ir.ops import BasicBlock, Op, Reg, Terminator
from probekit.records import fresh, mutable_record

__all__ = ("BlockBuilder", "BlockLabel")


@mutable_record
class BlockLabel:
    """A place to jump to."""

    block: int = -1
    """The index of its block; below 0 until it is placed."""


@mutable_record
class _DraftBlock:
    """A block whose targets are still labels."""

    ops: list[Op] = fresh(list)
    targets: tuple[BlockLabel, ...] | None = None
    """One label for a jump, two for a branch; None for the last block, which returns."""
    cond: Reg | None = None
    """The register that a branch tests."""

    def finished(self) -> BasicBlock:
        """Return the block. Its labels must be placed."""
        return BasicBlock(tuple(self.ops), self._terminator())

    def _terminator(self) -> Terminator:
        match self.targets, self.cond:
            case None, _:
                return ops.Return()
            case (target,), _:
                return ops.Jump(target.block)
            case (then, orelse), int(cond):
                return ops.Branch(cond, then.block, orelse.block)
        raise InternalError("a block ends in neither a jump, a branch nor a return")


@mutable_record
class BlockBuilder:
    """The blocks of one clause while they are built. The last one is open; the first is open from the start."""

    registers: int = 0
    """How many registers are in use."""
    _drafts: list[_DraftBlock] = fresh(lambda: [_DraftBlock()])

    @property
    def index(self) -> int:
        """The index of the open block."""
        return len(self._drafts) - 1

    def new_register(self) -> Reg:
        """Return a register that nothing uses yet."""
        self.registers += 1
        return self.registers - 1

    def add(self, op: Op) -> None:
        """Append an operation to the open block."""
        self._drafts[-1].ops.append(op)

    def place(self, label: BlockLabel) -> None:
        """Open a block at ``label``. The block before falls into it unless it has ended."""
        if label.block >= 0:
            raise InternalError("a label was placed twice")
        if self._drafts[-1].targets is None:
            self._drafts[-1].targets = (label,)
        self._drafts.append(_DraftBlock())
        label.block = self.index

    def jump(self, label: BlockLabel) -> None:
        """End the open block with a jump."""
        self._drafts[-1].targets = (label,)

    def branch(self, cond: Reg, then: BlockLabel, orelse: BlockLabel) -> None:
        """End the open block with a branch."""
        self._drafts[-1].cond = cond
        self._drafts[-1].targets = (then, orelse)

    def finished(self) -> tuple[BasicBlock, ...]:
        """Return all blocks. Every label that is jumped to must be placed."""
        return tuple(draft.finished() for draft in self._drafts)
