"""The undo journal: what is written is read back; a torn or damaged file is never believed."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probekit.errors import JournalError
from probekit.guest.calls import GENERAL_REGISTERS, Free, GuestCall
from probekit.guest.linux import Allocation
from probekit.patch import journal as module
from probekit.patch.edits import Edit
from probekit.patch.journal import Journal, default_dir, find_journals, remove_journal
from probekit.patch.journal_payloads import (
    JournalHeader,
    Registration,
    encode_facts,
    encode_header,
)
from probekit.patch.journal_records import MAGIC, Kind, encode_record
from probekit.patch.journal_state import Batch, JournalState, load

HEADER = JournalHeader("unix:/run/gdb.sock", os.getpid(), 1234.5, b"\x01\xab", 0xFFFFFFFF81000000, b"boot-1")
NOP5 = bytes.fromhex("0f1f440000")  # nop5
JMP = bytes.fromhex("e911223344")  # jmp rel32
REGS = {name: number for number, name in enumerate(GENERAL_REGISTERS)} | {"rsp": 1 << 63, "rax": (1 << 64) - 1}
CODE = Allocation("exec", 0xFFFFFFFFC0000000, 4096)
CALL = GuestCall(1, REGS, 0xFFFFFFFF81000010, 0xFFFFC90000000000, Free(CODE.addr))


def edits(count: int = 3) -> list[Edit]:
    return [Edit(0xFFFFFFFF81000000 + 16 * i, NOP5[: 1 + i % 5], JMP[: 1 + i % 5]) for i in range(count)]


def test_round_trip(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "deep" / "er", HEADER)
    memory = Allocation("data", 0xFFFFC90000001000, 4096)
    assert journal.edits(edits()) == 0
    assert journal.edits(edits(1)) == 1
    journal.allocated(memory)
    journal.allocated(Allocation("percpu", 0x1000, 8))
    journal.freed(0x1000)
    journal.call_started(CALL)
    journal.note("enabled")
    journal.close()
    state = load(journal.path)
    assert state.header == HEADER
    assert state.batches == (Batch(0, tuple(edits())), Batch(1, tuple(edits(1))))
    assert state.allocations == (memory,)
    assert (state.calls, state.notes, state.torn) == ((CALL,), ("enabled",), False)


def test_what_is_done_is_gone(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEADER)
    for _ in range(3):
        journal.edits(edits())
    journal.reverted(1)
    journal.call_started(CALL)
    journal.call_done(CALL.rsp)
    state = load(journal.path)
    assert [batch.number for batch in state.batches] == [0, 2] and state.calls == ()


def test_private_and_found_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "journals"
    assert find_journals(folder) == []
    first, second = Journal.create(folder, HEADER), Journal.create(folder, HEADER)
    assert folder.stat().st_mode & 0o777 == 0o700 and first.path.stat().st_mode & 0o777 == 0o600
    assert find_journals(folder) == [first.path, second.path]
    first.close_clean()
    assert find_journals(folder) == [second.path]
    first.close_clean()  # twice is harmless
    with pytest.raises(JournalError):
        first.note("too late")


def test_default_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_dir() == tmp_path / "probekit" / "journals"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_dir() == tmp_path / ".local" / "state" / "probekit" / "journals"


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(JournalError) as caught:
        Journal.create(tmp_path / "file", HEADER)
    assert str(tmp_path / "file") in caught.value.path


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.create(tmp_path, HEADER)
    journal.note("before")
    real = os.write

    def half(fd: int, data: memoryview) -> int:
        if len(data) < 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: len(data) // 2])

    monkeypatch.setattr(module.os, "write", half)
    with pytest.raises(JournalError, match="No space left"):
        journal.edits(edits())
    monkeypatch.setattr(module.os, "write", real)
    # The half record is gone; the journal goes on.
    journal.note("after")
    state = load(journal.path)
    assert (state.notes, state.batches, state.torn) == (("before", "after"), (), False)


def test_full_disk_at_the_start_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(JournalError):
        Journal.create(tmp_path, HEADER)
    assert list(tmp_path.iterdir()) == []


def _sample(path: Path) -> bytes:
    journal = Journal.create(path, HEADER)
    journal.edits(edits(5))
    journal.allocated(CODE)
    journal.call_started(CALL)
    journal.edits(edits(2))
    journal.note("enabled")
    journal.close()
    data = journal.path.read_bytes()
    journal.path.unlink()
    return data


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _sample(tmp_path_factory.mktemp("sample"))


def _is_prefix(path: Path, whole: JournalState) -> None:
    state = load(path)
    assert state.header == whole.header
    assert state.batches == whole.batches[: len(state.batches)]
    assert state.allocations in ((), whole.allocations)
    assert state.calls in ((), whole.calls)
    assert state.notes in ((), whole.notes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_truncated_anywhere(sample: bytes, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.journal"
    path.write_bytes(sample)
    whole = load(path)
    path.write_bytes(sample[: data.draw(st.integers(0, len(sample)))])
    with suppress(JournalError):
        _is_prefix(path, whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data(), bit=st.integers(0, 7))
def test_flipped_anywhere(sample: bytes, tmp_path: Path, data: st.DataObject, bit: int) -> None:
    path = tmp_path / "x.journal"
    path.write_bytes(sample)
    whole = load(path)
    damaged = bytearray(sample)
    damaged[data.draw(st.integers(0, len(sample) - 1))] ^= 1 << bit
    path.write_bytes(damaged)
    with suppress(JournalError):
        _is_prefix(path, whole)


def test_torn_tail_is_said(sample: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    path.write_bytes(sample[:-1])
    state = load(path)
    assert state.torn and state.notes == () and len(state.batches) == 2


def test_damage_in_the_middle_is_refused(sample: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    damaged = bytearray(sample)
    damaged[300] ^= 1  # inside the first edits
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match="damaged"):
        load(path)


_ODD = (
    b"{}",
    b"[]",
    b"1e999",
    b"[" * 5000,
    b'{"batch":true}',
    b'{"batch":-1}',
    b'{"addr":1e30}',
    b'{"kind":"exec","addr":1,"size":1}',
    b'{"rsp":18446744073709551615,"value":NaN}',
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from([0, *Kind, 99]), payload=st.one_of(st.binary(max_size=60), st.sampled_from(_ODD)))
def test_hostile_records(tmp_path: Path, kind: int, payload: bytes) -> None:
    """Well-formed records with any content: JournalError, or a state without surprises."""
    path = tmp_path / "x.journal"
    begin = MAGIC + encode_record(Kind.HEADER, encode_header(HEADER))
    path.write_bytes(begin + encode_record(kind, payload))  # type: ignore[arg-type]
    try:
        load(path)
    except JournalError as error:
        assert error.path == str(path)


@pytest.mark.parametrize("content", [b"", b"hello", MAGIC, MAGIC + b"\0" * 12])
def test_not_a_journal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.journal"
    path.write_bytes(content)
    with pytest.raises(JournalError):
        load(path)
    with pytest.raises(JournalError):
        load(tmp_path / "missing.journal")


def test_speed_of_everything(tmp_path: Path) -> None:
    many = [Edit(0xFFFFFFFF81000000 + 16 * i, NOP5, JMP) for i in range(90_000)]
    journal = Journal.create(tmp_path, HEADER)
    began = time.perf_counter()
    journal.edits(many)
    assert time.perf_counter() - began < 1.5  # 0.03 s on a quiet machine
    assert load(journal.path).batches == (Batch(0, tuple(many)),)


def test_room_is_taken_at_once_and_does_not_show(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEADER, 5000)
    assert journal.path.stat().st_size > 5000
    journal.note("x")
    journal.close()
    state = load(journal.path)
    assert state.notes == ("x",) and not state.torn
    again = Journal.reopen(state)
    again.note("y" * 9000)
    again.close()
    assert load(journal.path).notes == ("x", "y" * 9000)


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_torn_inside_its_room(tmp_path: Path, cut: int) -> None:
    journal = Journal.create(tmp_path, HEADER, 1000)
    before = len(journal.contents())
    journal.note("a note that is not written to its end")
    whole = journal.contents()
    journal.close()
    end = max(len(whole) - cut, before + 1)
    journal.path.write_bytes(whole[:end] + bytes(500))
    state = load(journal.path)
    assert state.torn and state.notes == ()


def test_registrations_stand_until_they_are_taken_back(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEADER)
    first, second = Registration("tracepoint", (1 << 63, 5, 0)), Registration("module", (7,))
    journal.registered([first, second])
    journal.unregistered([first])
    state = load(journal.path)
    assert state.registrations == (second,)
    again = Journal.reopen(state)
    again.unregistered([second])
    assert load(journal.path).registrations == ()


@pytest.mark.parametrize(
    "item",
    ["tracepoint", [], [7], ["x", -1], ["x", 1 << 64], ["x", "1"], ["x", True], ["x", *[1] * 9], ["timer", 1]],
)
def test_a_registration_that_is_none(tmp_path: Path, item: object) -> None:
    journal = Journal.create(tmp_path, HEADER)
    with journal.path.open("ab") as stream:
        stream.write(encode_record(Kind.REGISTERED, encode_facts({"items": [item]})))
    with pytest.raises(JournalError, match="registration"):
        load(journal.path)


def test_one_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.create(tmp_path, HEADER)

    def refuse(path: Path, *, missing_ok: bool) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(JournalError, match=r"could not be removed: .*\.journal: Input/output error") as caught:
            journal.close_clean()
        assert "nothing of it is left" in caught.value.hint
    (left,) = find_journals(tmp_path)
    remove_journal(left)
    remove_journal(left)
    assert find_journals(tmp_path) == []


def test_a_user_without_a_home_hears_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(JournalError, match="no home directory") as caught:
        default_dir()
    assert "XDG_STATE_HOME" in caught.value.hint


def test_journals_that_cannot_be_looked_for_are_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert find_journals(tmp_path / "missing") == find_journals(tmp_path / "file") == []

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(JournalError, match="cannot be read: Permission denied") as caught:
        find_journals(tmp_path)
    assert "XDG_STATE_HOME" in caught.value.hint
