"""The replay of a journal: after any records it names exactly what is in the guest."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import JournalError
from probekit.guest.calls import (
    GENERAL_REGISTERS,
    Allocate,
    CallPurpose,
    Free,
    GetModule,
    GuestCall,
    OtherCall,
    PutModule,
    RemoveListEntry,
)
from probekit.guest.linux import Allocation
from probekit.patch.edits import Edit
from probekit.patch.journal_payloads import MODULE, CallResult, Registration
from probekit.patch.journal_records import Kind, Record, RecordError
from probekit.patch.journal_state import Replay, load, load_header, parse

_EXEC = 0xFFFFFFFFC0000000
_EDIT = Edit(_EXEC, b"\x90", b"\xcc")


def _call(purpose: CallPurpose, rsp: int = 0x1000) -> GuestCall:
    return GuestCall(0, dict.fromkeys(GENERAL_REGISTERS, 0), 0x2000, rsp, purpose)


def _after(purpose: CallPurpose, value: int, replay: Replay | None = None) -> Replay:
    replay = replay or Replay()
    replay.call_started(_call(purpose))
    replay.call_returned(CallResult(0x1000, value))
    replay.call_done(0x1000)
    return replay


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=30))
def test_the_batches_left_are_those_that_were_not_reverted(steps: list[int | None]) -> None:
    """None makes a batch; a number takes one back, which may have been taken back before."""
    replay, made, gone = Replay(), 0, set[int]()
    for step in steps:
        if step is None:
            replay.edits([_EDIT])
            made += 1
        elif step < made:
            replay.reverted(step)
            gone.add(step)
        else:
            with pytest.raises(RecordError, match="never made"):
                replay.reverted(step)
    assert list(replay.batches) == [number for number in range(made) if number not in gone]
    assert replay.empty == (made == len(gone))


@pytest.mark.parametrize(
    ("value", "is_ours"),
    [(_EXEC, True), (0, False), ((1 << 64) - 12, False), (0x1000, False)],
    ids=["memory", "NULL", "error", "user address"],
)
def test_memory_is_ours_when_the_call_returned_an_address(value: int, is_ours: bool) -> None:
    replay = _after(Allocate("exec", 4096), value)
    assert list(replay.allocations.values()) == ([Allocation("exec", value, 4096)] if is_ours else [])


def test_a_percpu_pointer_is_small_and_still_memory() -> None:
    assert list(_after(Allocate("percpu", 64), 0x2E0C0).allocations) == [0x2E0C0]


def test_memory_that_a_call_freed_is_no_longer_ours() -> None:
    replay = _after(Allocate("exec", 4096), _EXEC)
    _after(Free(_EXEC), 0, replay)
    assert replay.empty
    replay.freed(_EXEC)  # the record of it comes after that of the call


@pytest.mark.parametrize(("value", "held"), [(1, True), (0x1201, True), (0, False), (0x100, False)])
def test_a_module_is_held_when_the_lowest_byte_says_so(value: int, held: bool) -> None:
    replay = _after(GetModule(0x7000), value)
    assert list(replay.registrations) == ([Registration(MODULE, (0x7000,))] if held else [])
    _after(PutModule(0x7000), 0, replay)
    assert replay.empty


def test_a_hook_that_was_removed_is_gone_when_the_call_has_returned_and_not_before() -> None:
    replay = Replay()
    replay.registered([Registration("die_notifier", (0x9000,))])
    replay.call_started(_call(RemoveListEntry("die_notifier", 0x9000)))
    assert replay.registrations
    replay.call_returned(CallResult(0x1000, 0))
    assert not replay.registrations


def test_a_task_is_borrowed_until_it_is_given_back() -> None:
    replay = Replay()
    replay.call_started(_call(OtherCall(), 0x1000))
    replay.call_started(_call(OtherCall(), 0x3000))
    replay.call_done(0x1000)
    assert list(replay.calls) == [0x3000] and not replay.empty
    for wrong in (lambda: replay.call_done(0x1000), lambda: replay.call_returned(CallResult(0x1000, 0))):
        with pytest.raises(RecordError, match="no guest call returns"):
            wrong()


def test_a_second_call_on_the_same_stack_ends_the_first_one_and_is_the_last() -> None:
    replay = Replay()
    replay.call_started(_call(Free(1), 0x1000))
    replay.call_started(_call(OtherCall(), 0x3000))
    replay.call_started(_call(Free(2), 0x1000))
    assert [call.purpose for call in replay.calls.values()] == [OtherCall(), Free(2)]


def test_the_recovery_table_is_there_until_it_is_wiped() -> None:
    replay = Replay()
    replay.table_written(0x5000)
    assert replay.table == 0x5000
    replay.table_wiped()
    assert replay.table is None


@given(st.one_of(st.sampled_from(Kind), st.integers(0, 255)), st.binary(max_size=40))
def test_a_record_of_any_bytes_is_taken_or_refused_as_one(kind: int, payload: bytes) -> None:
    try:
        Replay().take(Record(kind, payload))
    except RecordError:
        return


@given(st.binary(max_size=80))
def test_bytes_that_are_no_journal_are_refused(data: bytes) -> None:
    with pytest.raises(JournalError, match="no journal that can be trusted"):
        parse(data)


def test_a_file_that_is_missing_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (load, load_header):
        with pytest.raises(JournalError, match="cannot be read"):
            read(tmp_path / "none")
    path = tmp_path / "large"
    path.write_bytes(bytes(100))
    monkeypatch.setattr("probekit.patch.journal_state._MAX_FILE", 99)
    with pytest.raises(JournalError, match="too large"):
        load(path)
