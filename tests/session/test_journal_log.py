"""What the disk knows of a guest: journals that are left, and what their last call did."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.errors import JournalError
from probekit.patch.journal import Journal
from probekit.patch.journal_records import MAGIC
from probekit.patch.journal_state import JournalHeader
from probekit.session.identity import target_key
from probekit.session.journal_log import journals_of, last_call

SPEC = "unix:/no/such/stub"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "probekit" / "journals"
    folder.mkdir(parents=True)
    return folder


def _journal(folder: Path, spec: str = SPEC) -> Path:
    header = JournalHeader(target_key(spec), 1, 2.0, b"id", 0xFFFFFFFF81000000, b"cookie")
    journal = Journal.create(folder, header)
    journal.close()
    return journal.path


def test_only_those_of_the_target(folder: Path) -> None:
    mine = _journal(folder)
    _journal(folder, "unix:/another")
    assert [state.path for state in journals_of(SPEC)] == [mine]


def test_damage_in_the_journal_of_another_is_its_own_affair(folder: Path) -> None:
    mine, other = _journal(folder), _journal(folder, "unix:/another")
    other.write_bytes(other.read_bytes() + bytes(100) + b"x" * 100)
    assert [state.path for state in journals_of(SPEC)] == [mine]
    with pytest.raises(JournalError):
        journals_of("unix:/another")


def test_a_journal_has_its_name_only_with_its_header(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise OSError(5, "no more")

    monkeypatch.setattr(Path, "rename", never)
    with pytest.raises(JournalError):
        _journal(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"x", b"no journal at all", MAGIC, MAGIC + bytes(100)])
def test_one_that_is_damaged_is_not_passed_over(folder: Path, data: bytes) -> None:
    (folder / "0-damaged-0.journal").write_bytes(data)
    with pytest.raises(JournalError):
        journals_of(SPEC)


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ([], ("", None)),
        (["something else"], ("", None)),
        (["call: allocate exec 4096"], ("allocate exec 4096", None)),
        (["call: allocate exec 4096", "returned: 0xffffffffc0000000"], ("allocate exec 4096", 0xFFFFFFFFC0000000)),
        (["call: free 0x10", "returned: 0x0", "call: "], ("", None)),
        (["call: ", "returned: 0x1", "call: free 0x10"], ("free 0x10", None)),
    ],
)
def test_the_last_call(notes: list[str], expected: tuple[str, int | None]) -> None:
    assert last_call(notes) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("localhost:1234", "tcp:127.0.0.1:1234"),
        ("unix:/tmp/./a/../s", "unix:/tmp/s"),
        ("gdb:localhost:1234", "localhost:1234"),
        ("gdb:/tmp/s", "unix:/tmp/s"),
    ],
)
def test_one_guest_has_one_name(one: str, other: str) -> None:
    assert target_key(one) == target_key(other)
