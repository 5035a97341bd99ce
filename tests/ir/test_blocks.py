"""Blocks while they are built: labels are placed once, and control falls into the next block unless it has ended."""

from __future__ import annotations

import pytest

from probekit.errors import InternalError
from probekit.ir.blocks import BlockBuilder, BlockLabel
from probekit.ir.ops import BasicBlock, Branch, Int, Jump, Return


def test_one_block_returns() -> None:
    blocks = BlockBuilder()
    blocks.add(Int(blocks.new_register(), 1))
    assert blocks.finished() == (BasicBlock((Int(0, 1),), Return()),)


def test_a_block_falls_into_the_next_one() -> None:
    blocks, end = BlockBuilder(), BlockLabel()
    blocks.place(end)
    assert [block.end for block in blocks.finished()] == [Jump(1), Return()]


def test_labels_become_the_indexes_of_their_blocks() -> None:
    blocks = BlockBuilder()
    then, orelse, end = BlockLabel(), BlockLabel(), BlockLabel()
    blocks.branch(blocks.new_register(), then, orelse)
    blocks.place(then)
    assert blocks.index == 1
    blocks.jump(end)
    blocks.place(orelse)
    blocks.add(Int(blocks.new_register(), 2))
    blocks.place(end)
    assert blocks.finished() == (
        BasicBlock((), Branch(0, 1, 2)),
        BasicBlock((), Jump(3)),
        BasicBlock((Int(1, 2),), Jump(3)),
        BasicBlock((), Return()),
    )
    assert blocks.registers == 2


def test_a_label_is_placed_once() -> None:
    blocks, label = BlockBuilder(), BlockLabel()
    blocks.place(label)
    with pytest.raises(InternalError, match="placed twice"):
        blocks.place(label)


def test_builders_share_nothing() -> None:
    first, second = BlockBuilder(), BlockBuilder()
    first.add(Int(first.new_register(), 1))
    assert second.finished() == (BasicBlock((), Return()),)
