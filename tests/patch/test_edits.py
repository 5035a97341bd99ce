"""All or nothing, and only what is ours: edits on a guest of bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_target import FakeTarget

from probekit.errors import ConflictError, JournalError, MemoryAccessError, TargetError, TargetLost
from probekit.patch.edits import Edit, EditSet, apply_edits, revert_batches, revert_edits, rips_inside

BASE = 0xFFFFFFFF81000000
NOP5 = bytes.fromhex("0f1f440000")  # nop5
JMP = bytes.fromhex("e911223344")  # jmp rel32
INT3 = bytes.fromhex("cc1f440000")  # int3 over a nop5


def guest(count: int = 4) -> FakeTarget:
    return FakeTarget({BASE: bytearray(NOP5.ljust(16, b"\x90") * count)})


def edits(count: int = 4) -> list[Edit]:
    return [Edit(BASE + 16 * i, NOP5, JMP) for i in range(count)]


class Log:
    """A journal that remembers, and looks at the guest when it is called."""

    def __init__(self, target: FakeTarget, fail: bool = False) -> None:
        self.target, self.fail = target, fail
        self.batches: list[list[Edit]] = []

    def __call__(self, batch: Sequence[Edit]) -> None:
        assert not self.target.written, "the journal comes before the first write"
        if self.fail:
            raise JournalError("disk full", path="/x")
        self.batches.append(list(batch))


def test_apply_and_revert() -> None:
    target = guest()
    before = bytes(target.memory[BASE])
    log = Log(target)
    apply_edits(target, edits(), log)
    assert log.batches == [edits()]
    assert all(target.read(edit.addr, 5) == JMP for edit in edits())
    report = revert_edits(target, edits())
    assert report.restored == tuple(edit.addr for edit in edits()) and report.clean
    assert target.memory[BASE] == before
    again = revert_edits(target, edits())
    assert again.already == report.restored and not again.restored


def test_conflict_before_anything_is_written() -> None:
    target = guest()
    target.memory[BASE][32:37] = INT3
    log = Log(target)
    with pytest.raises(ConflictError) as caught:
        apply_edits(target, edits(), log)
    assert (caught.value.addr, caught.value.expected, caught.value.found) == (BASE + 32, NOP5, INT3)
    assert not target.written and not log.batches


def test_unreadable_before_anything_is_written() -> None:
    target = guest(2)
    with pytest.raises(MemoryAccessError) as caught:
        apply_edits(target, edits(3), Log(target))
    assert caught.value.addr == BASE + 32 and not target.written


def test_journal_failure_before_anything_is_written() -> None:
    target = guest()
    with pytest.raises(JournalError):
        apply_edits(target, edits(), Log(target, fail=True))
    assert not target.written


@pytest.mark.parametrize("writes", range(4))
def test_a_write_that_fails_undoes_the_others(writes: int) -> None:
    target = guest()
    before = bytes(target.memory[BASE])
    target.die_after = writes
    with pytest.raises(TargetLost):
        apply_edits(target, edits(), Log(target))
    assert target.memory[BASE] == before


def test_a_write_that_has_no_effect_is_found_and_undone() -> None:
    target = guest()
    before = bytes(target.memory[BASE])
    target.ignore = frozenset({BASE + 16})
    with pytest.raises(ConflictError) as caught:
        apply_edits(target, edits(), Log(target))
    assert caught.value.addr == BASE + 16 and target.memory[BASE] == before


def test_an_undo_that_fails_is_noted() -> None:
    target = guest()
    target.die_after = 2

    def journal(batch: Sequence[Edit]) -> None:
        pass

    class Dying(FakeTarget):
        def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
            if self.written:
                raise TargetLost("gone for good")
            return super().read_many(ranges)

    dying = Dying(target.memory, die_after=2)
    with pytest.raises(TargetError) as caught:
        apply_edits(dying, edits(), journal)
    assert "undoing the edits failed too" in caught.value.__notes__[0]


def test_revert_leaves_alone_what_is_not_ours() -> None:
    target = guest()
    apply_edits(target, edits(), Log(target))
    target.memory[BASE][16:21] = INT3  # someone else's breakpoint
    target.memory[BASE][32:37] = NOP5  # someone restored it
    report = revert_edits(target, [*edits(), Edit(BASE + 0x10000, NOP5, JMP)])
    assert report.restored == (BASE, BASE + 48)
    assert report.already == (BASE + 32,)
    assert report.conflicts == ((BASE + 16, INT3),)
    assert report.unreadable == (BASE + 0x10000,)
    assert not report.clean and target.read(BASE + 16, 5) == INT3


def test_windows_around_a_hole_are_read_one_by_one() -> None:
    """Neighbours are read together; where that meets unmapped memory each is read alone."""
    target = FakeTarget({BASE: bytearray(NOP5), BASE + 64: bytearray(NOP5)})
    both = [Edit(BASE + 64, NOP5, JMP), Edit(BASE, NOP5, JMP)]
    apply_edits(target, both, lambda edits: None)
    assert target.read(BASE, 5) == target.read(BASE + 64, 5) == JMP
    assert revert_edits(target, both).restored == (BASE, BASE + 64)


@given(st.integers(0, 2))
def test_batches_are_undone_through_each_other(applied: int) -> None:
    """A place edited twice: whichever edit had been made when the process died, the first bytes come back."""
    second = bytes.fromhex("e955667788")  # jmp rel32, elsewhere
    batches = [[Edit(BASE, NOP5, JMP)], [Edit(BASE, JMP, second)]]
    target = guest(1)
    for batch in batches[:applied]:
        apply_edits(target, batch, lambda edits: None)
    report = revert_batches(target, batches)
    assert target.read(BASE, 5) == NOP5
    assert report.clean


@pytest.mark.parametrize(
    "bad",
    [
        [Edit(BASE, NOP5, b"\xe9")],
        [Edit(BASE, b"", b"")],
        [Edit(BASE, NOP5, JMP), Edit(BASE + 4, NOP5, JMP)],
        [Edit(BASE, NOP5, JMP), Edit(BASE, NOP5, JMP)],
    ],
)
def test_contradictions_are_refused(bad: list[Edit]) -> None:
    with pytest.raises(ValueError, match="edit at"):
        EditSet(bad)
    target = guest()
    with pytest.raises(ValueError, match="edit at"):
        apply_edits(target, bad, Log(target))
    assert not target.written


def test_rips_inside() -> None:
    inside = [BASE + 1, BASE + 4, BASE + 17]
    outside = [BASE, BASE + 5, BASE + 16, BASE - 1, 0, (1 << 64) - 1]
    assert rips_inside([*outside, *inside], EditSet(edits())) == tuple(inside)
    assert rips_inside([BASE], EditSet([])) == ()
