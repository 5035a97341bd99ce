"""What the disk knows of a guest: journals that are left, and what their process did."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.errors import JournalError
from probekit.patch.journal import Journal
from probekit.patch.journal_payloads import JournalHeader
from probekit.patch.journal_records import MAGIC
from probekit.session.identity import target_key
from probekit.session.journal_log import journals_of

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
