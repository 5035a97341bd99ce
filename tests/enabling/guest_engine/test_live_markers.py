"""Markers connected, switched on, and the way back, whatever was done to them meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from probekit.enabling.guest_engine.live_markers import LiveMarkers, load_bypasses
from probekit.errors import ConflictError
from probekit.guest.memory import PauseClock
from probekit.patch.edits import Edit, revert_batches
from probekit.patch.hooks import MarkerHook, marker_edits
from probekit.target.api import Regs
from tests.support.fake_target import FakeTarget

TEXT, DATA = 0xFFFFFFFFC0000000, 0xFFFFFFFFC0100000
OFF, OURS = TEXT + 0x800, TEXT + 0x900
OPTIMIZED = MarkerHook(DATA, 7, (DATA + 40, OFF), 0, ((TEXT, b"\xb0\x00"), (TEXT + 0x10, b"\xb3\x00")))
GENERIC = MarkerHook(DATA + 56, 7, (DATA + 96, OFF), DATA + 108, ())
HOOKS = ((OPTIMIZED, OURS), (GENERIC, OURS + 0x20))


class Target(FakeTarget):
    """A fake one that can be stopped."""

    def stop(self) -> None:
        self.running = False


class Log:
    """Remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Edit]] = []

    def edits(self, edits: Sequence[Edit]) -> None:
        self.batches.append(edits)


def _target() -> Target:
    text, data = bytearray(b"\x90" * 0x100), bytearray(0x100)
    for hook, _ in HOOKS:
        for addr, old in hook.loads:
            text[addr - TEXT : addr - TEXT + 2] = old
        data[hook.call[0] - DATA : hook.call[0] - DATA + 8] = OFF.to_bytes(8, "little")
    regs = Regs(values={"rip": 0, "eflags": 0x202, "cs": 0x10}, raw=b"")
    return Target({TEXT: text, DATA: data}, {0: regs, 1: regs}, running=True)


def _marks(target: Target) -> LiveMarkers:
    anything: Any = target
    return LiveMarkers(marker_edits(HOOKS), anything, anything, PauseClock(anything))


def _memory(target: Target) -> dict[int, bytes]:
    return {addr: bytes(data) for addr, data in target.memory.items()}


def test_on_and_off() -> None:
    target = _target()
    before, marks = _memory(target), _marks(target)
    marks.connect()
    text, data = target.memory[TEXT], target.memory[DATA]
    assert text[0:2] == b"\xb0\x01" and text[16:18] == b"\xb3\x01"
    assert data[40:48] == OURS.to_bytes(8, "little") and data[96:104] == (OURS + 0x20).to_bytes(8, "little")
    assert data[108] == 1 and target.running
    pointers = next(n for n, (addr, _) in enumerate(target.written) if addr >= DATA)
    first_int3 = next(n for n, (_, code) in enumerate(target.written) if b"\xcc" in code)
    assert pointers < first_int3, "the pointer leads to us before anybody is sent there"
    assert marks.disconnect() == [] and _memory(target) == before
    assert marks.disconnect() == [] and _memory(target) == before


def test_bypasses_lead_behind_the_loads() -> None:
    assert load_bypasses(HOOKS) == {TEXT: TEXT + 2, TEXT + 0x10: TEXT + 0x12}


@pytest.mark.parametrize("writes", range(12))
def test_every_failure_can_be_undone(writes: int) -> None:
    target = _target()
    before, log, marks = _memory(target), Log(), _marks(target)
    marks.announce(log)  # type: ignore[arg-type]
    target.die_after = writes
    try:
        marks.connect()
    except Exception:  # noqa: BLE001 - whatever it was
        target.running = True
    target.die_after = None
    assert marks.disconnect() == [] and _memory(target) == before


@pytest.mark.parametrize("writes", range(12))
def test_the_journal_undoes_it_too(writes: int) -> None:
    target = _target()
    before, log, marks = _memory(target), Log(), _marks(target)
    marks.announce(log)  # type: ignore[arg-type]
    assert [len(batch) for batch in log.batches] == [2, 1, 2, 2, 2]
    written: list[tuple[int, bytes]] = []
    marks.connect()
    written = target.written[:writes]
    fresh = _target()
    fresh.running = False
    fresh.write_many(written)
    assert revert_batches(fresh, log.batches).clean and _memory(fresh) == before


def test_what_somebody_else_changed_is_left_alone() -> None:
    target = _target()
    marks = _marks(target)
    marks.connect()
    target.memory[TEXT][0] = 0xCC
    target.memory[DATA][96] ^= 0xFF
    problems = marks.disconnect()
    assert len(problems) == 2 and f"{TEXT:#x}" in problems[0] and f"{DATA + 96:#x}" in problems[1]
    assert target.memory[TEXT][0] == 0xCC and target.memory[TEXT][16:18] == b"\xb3\x00"
    assert target.memory[DATA][108] == 0


def test_a_marker_that_changed_since_it_was_found() -> None:
    target = _target()
    target.memory[TEXT][1] = 7
    marks, before = _marks(target), _memory(target)
    with pytest.raises(ConflictError):
        marks.connect()
    marks.disconnect()
    assert _memory(target) == before
