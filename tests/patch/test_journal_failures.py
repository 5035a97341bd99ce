"""The disk fails in the middle of a record: the journal says what it said before, and goes on, or is closed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probekit.errors import JournalError
from probekit.guest.calls import GENERAL_REGISTERS, GuestCall, OtherCall
from probekit.guest.linux import Allocation
from probekit.patch import journal as module
from probekit.patch.edits import Edit
from probekit.patch.journal import Journal
from probekit.patch.journal_payloads import CallResult, JournalHeader, Registration
from probekit.patch.journal_state import load

HEADER = JournalHeader("unix:/run/guest.sock", 1, 2.0, b"id", 0xFFFFFFFF81000000, b"boot")
TOP = 0xFFFFC90000000000
CALL = GuestCall(1, dict.fromkeys(GENERAL_REGISTERS, 7), 0xFFFFFFFF81000010, TOP, OtherCall())
WRITES: dict[str, Callable[[Journal], object]] = {
    "edits": lambda journal: journal.edits([Edit(TOP, b"abc", b"def")] * 1),
    "reverted": lambda journal: journal.reverted(0),
    "allocated": lambda journal: journal.allocated(Allocation("data", TOP, 4096)),
    "freed": lambda journal: journal.freed(TOP),
    "registered": lambda journal: journal.registered([Registration("module", (TOP,))]),
    "unregistered": lambda journal: journal.unregistered([Registration("module", (TOP,))]),
    "call_started": lambda journal: journal.call_started(CALL),
    "call_returned": lambda journal: journal.call_returned(CallResult(TOP, 5)),
    "call_done": lambda journal: journal.call_done(TOP),
    "table_written": lambda journal: journal.table_written(TOP),
    "table_wiped": lambda journal: journal.table_wiped(),
    "note": lambda journal: journal.note("a note"),
}


class Disk:
    """Stands in for ``os``. ``fails``: what it raises in these of its calls, each for one time."""

    def __init__(self, **fails: BaseException) -> None:
        self.fails = fails
        self.part: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _maybe(self, name: str) -> None:
        error = self.fails.pop(name, None)
        if error is not None:
            raise error

    def write(self, fd: int, data: memoryview) -> int:
        """Take ``part`` of the bytes before it fails."""
        if "write" in self.fails and self.part:
            part, self.part = self.part, 0
            return os.write(fd, data[:part])
        self._maybe("write")
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        self._maybe("fsync")
        os.fsync(fd)

    def ftruncate(self, fd: int, size: int) -> None:
        self._maybe("ftruncate")
        os.ftruncate(fd, size)

    def posix_fallocate(self, fd: int, offset: int, size: int) -> None:
        self._maybe("posix_fallocate")
        os.posix_fallocate(fd, offset, size)

    def open(self, *args: Any) -> int:
        self._maybe("open")
        return os.open(*args)


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(module, "os", found)
    return found


def begun(folder: Path, reserve: int = 0) -> Journal:
    """A journal to which each of :data:`WRITES` can be written."""
    journal = Journal.create(folder, HEADER, reserve)
    journal.edits([Edit(TOP + 64, b"old", b"new")])
    journal.call_started(CALL)
    return journal


@pytest.mark.parametrize("reserve", [0, 5000])
@pytest.mark.parametrize("part", [0, 1, 11, 12, 13, None])
@pytest.mark.parametrize("name", WRITES)
def test_a_record_that_fails_is_as_if_it_had_never_begun(
    tmp_path: Path, disk: Disk, name: str, part: int | None, reserve: int
) -> None:
    """``part``: bytes that are written before; None: all, and the wait for the disk fails."""
    journal = begun(tmp_path, reserve)
    before, whole, room = load(journal.path), journal.contents(), journal.path.stat().st_size
    disk.part = part
    disk.fails["fsync" if part is None else "write"] = full()
    with pytest.raises(JournalError, match="No space left") as caught:
        WRITES[name](journal)
    assert "nothing was changed" not in caught.value.hint
    assert load(journal.path) == before and journal.contents() == whole
    assert not reserve or journal.path.stat().st_size == room, "its room is kept"
    WRITES[name](journal)
    journal.note("more")
    after = load(journal.path)
    assert after.notes[-1] == "more" and len(after.records) == len(before.records) + 2 and not after.torn


@pytest.mark.parametrize("name", WRITES)
def test_a_record_that_cannot_be_cut_off_ends_the_journal(tmp_path: Path, disk: Disk, name: str) -> None:
    journal = begun(tmp_path)
    before = load(journal.path)
    disk.part = 9
    disk.fails |= {"write": full(), "ftruncate": OSError(errno.EIO, "Input/output error")}
    with pytest.raises(JournalError, match="No space left"):
        WRITES[name](journal)
    with pytest.raises(JournalError, match="closed"):
        journal.note("too late")
    after = load(journal.path)
    assert after.torn and after.records == before.records, "half a record at the end is no record"
    again = Journal.reopen(after)
    again.note("another process")
    assert load(journal.path).notes == ("another process",) and not load(journal.path).torn


@pytest.mark.parametrize("at", ["write", "fsync"])
def test_whoever_interrupts_a_write_finds_a_whole_journal(tmp_path: Path, disk: Disk, at: str) -> None:
    journal = begun(tmp_path)
    whole = journal.contents()
    disk.part = 9 if at == "write" else None
    disk.fails[at] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        journal.note("a note")
    assert journal.contents() == whole == journal.path.read_bytes().rstrip(b"\0").ljust(len(whole), b"\0")
    journal.note("another")
    assert load(journal.path).notes == ("another",)


def test_room_that_cannot_be_kept_is_no_reason_to_stop(tmp_path: Path, disk: Disk) -> None:
    journal = begun(tmp_path, 5000)
    disk.fails |= {"write": full(), "posix_fallocate": full()}
    with pytest.raises(JournalError):
        journal.note("a note")
    journal.note("another")
    assert load(journal.path).notes == ("another",)


@pytest.mark.parametrize("at", ["open", "write", "fsync", "posix_fallocate"])
def test_a_journal_that_cannot_be_begun_leaves_no_file(tmp_path: Path, disk: Disk, at: str) -> None:
    disk.fails[at] = full()
    with pytest.raises(JournalError, match=r"could not be created.*No space left") as caught:
        Journal.create(tmp_path, HEADER, 5000)
    assert "nothing was changed" in caught.value.hint and list(tmp_path.iterdir()) == []


def test_neither_does_one_whose_name_is_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "_sync_directory", fails)
    with pytest.raises(JournalError, match="could not be created"):
        Journal.create(tmp_path, HEADER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", ["open", "ftruncate"])
def test_a_journal_that_cannot_be_continued(tmp_path: Path, disk: Disk, at: str) -> None:
    journal = begun(tmp_path)
    journal.close()
    state = load(journal.path)
    disk.fails[at] = OSError(errno.EIO, "Input/output error")
    with pytest.raises(JournalError, match="cannot be continued"):
        Journal.reopen(state)
    assert load(journal.path) == state


@pytest.mark.parametrize(
    "write",
    [
        lambda journal: journal.call_started(GuestCall(1, CALL.regs, CALL.return_addr, 0x1000, OtherCall())),
        lambda journal: journal.call_started(GuestCall(1, {"rip": 1}, CALL.return_addr, TOP, OtherCall())),
        lambda journal: journal.allocated(Allocation("exec", 0x1000, 4096)),
        lambda journal: journal.allocated(Allocation("data", TOP, 0)),
        lambda journal: journal.registered([Registration("timer", (1,))]),
        lambda journal: journal.registered([Registration("module", (1 << 64,))]),
        lambda journal: journal.freed(-1),
    ],
)
def test_what_a_recovery_could_not_read_is_not_written(tmp_path: Path, write: Callable[[Journal], object]) -> None:
    """Then nothing is done of which it would speak, and what was written before stays good."""
    journal = begun(tmp_path)
    before = load(journal.path)
    with pytest.raises(JournalError, match="cannot hold this"):
        write(journal)
    assert load(journal.path) == before
