"""Edits in stages, in parts, and the way back for what still holds our bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from probekit.enabling.guest_engine.staged_edits import FOREIGN, UNMAPPED, StagedEdits, jump_targets
from probekit.errors import ConflictError
from probekit.guest.memory import PauseClock
from probekit.patch.edits import Edit
from probekit.target.api import Regs
from tests.support.fake_target import FakeTarget

TEXT, STUB = 0xFFFFFFFFC0000000, 0xFFFFFFFFC0800000
OLD = b"\x0f\x1f\x44\x00\x00"  # nop dword ptr [rax + rax]


class Target(FakeTarget):
    """A fake one that can be stopped."""

    def stop(self) -> None:
        self.running = False


def edit(number: int) -> Edit:
    addr = TEXT + 16 * number
    return Edit(addr, OLD, b"\xe9" + (STUB + 32 * number - addr - 5).to_bytes(4, "little"))


def made(count: int, beat: Callable[[], None] = lambda: None) -> tuple[Target, StagedEdits]:
    text = bytearray((OLD.ljust(16, b"\x90")) * count)
    target = Target({TEXT: text}, {1: Regs({"rip": 0, "eflags": 0x202, "cs": 0x10}, b"")}, running=True)
    anything: Any = target
    return target, StagedEdits([edit(n) for n in range(count)], anything, anything, PauseClock(anything), beat)


def test_where_a_jump_leads_is_where_its_int3_leads() -> None:
    assert jump_targets([edit(0), edit(3)]) == {TEXT: STUB, TEXT + 48: STUB + 96}


def test_many_edits_go_in_parts_with_a_heartbeat_before_each() -> None:
    beats: list[int] = []
    target, staged = made(1201, lambda: beats.append(1))
    before = bytes(target.memory[TEXT])
    staged.apply()
    assert len(beats) == 3 and target.running
    assert all(target.memory[TEXT][16 * n : 16 * n + 5] == edit(n).new for n in range(1201))
    assert staged.revert() == [] and bytes(target.memory[TEXT]) == before and len(beats) == 6


def test_what_somebody_else_changed_is_left_alone_and_the_others_go_back() -> None:
    target, staged = made(3)
    staged.apply()
    target.memory[TEXT][16:21] = b"\xcc\x90\x90\x90\x90"
    assert staged.revert() == [f"{TEXT + 16:#x} {FOREIGN}"]
    assert target.memory[TEXT][0:5] == OLD == target.memory[TEXT][32:37]
    assert target.memory[TEXT][16] == 0xCC


def test_text_that_is_gone_is_said() -> None:
    target, staged = made(2)
    staged.apply()
    target.memory[TEXT] = target.memory[TEXT][:16]
    assert staged.revert() == [f"{TEXT + 16:#x} {UNMAPPED}"]


def test_nothing_is_written_when_a_site_changed_since_it_was_found() -> None:
    target, staged = made(2)
    target.memory[TEXT][16] = 0xCC
    with pytest.raises(ConflictError):
        staged.apply()
    assert target.written == []


def test_the_journal_has_every_form_that_a_site_goes_through() -> None:
    batches: list[list[Edit]] = []

    class Log:
        def edits(self, edits: Any) -> None:
            batches.append(list(edits))

    log: Any = Log()
    target, staged = made(2)
    staged.announce(log)
    text = bytearray(target.memory[TEXT])
    for change in (one for batch in batches for one in batch):
        at = change.addr - TEXT
        assert text[at : at + len(change.old)] == change.old
        text[at : at + len(change.new)] = change.new
    assert len(batches) == 3 and [text[16 * n : 16 * n + 5] for n in (0, 1)] == [edit(0).new, edit(1).new]
