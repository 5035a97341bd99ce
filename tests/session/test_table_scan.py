"""Recovery tables in a guest: those whose journal is not known are adopted, damaged ones are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.errors import JournalError
from probekit.guest.linux import Allocation
from probekit.patch.edits import Edit
from probekit.patch.journal import Journal
from probekit.patch.journal_payloads import TIMER, JournalHeader, Registration
from probekit.patch.journal_state import JournalState, load
from probekit.patch.recovery_table import header, read_header
from probekit.session import table_scan
from probekit.session.table_scan import FoundTable, adopt_tables, with_table
from tests.support.fake_target import FakeTarget

COOKIE = b"this boot"
KEY = "unix:/here"
WHERE, TABLE = 0xFFFFFFFFC0000000, 0xFFFFC90000001000
HEADER = JournalHeader("tcp:elsewhere:1", 1, 2.0, b"id", 0xFFFFFFFF81000000, COOKIE, b"token 01")
DATA = Allocation("data", TABLE, 1 << 16)
TICK = Registration(TIMER, (TABLE, WHERE))
EDIT = Edit(0xFFFFFFFF81000100, b"\x0f\x1f\x44\x00\x00", b"\xe9\x00\x00\x00\x00")


def journal(folder: Path, head: JournalHeader = HEADER) -> Journal:
    """Write a journal that lists everything, as one does before its table is written."""
    made = Journal.create(folder, head)
    made.allocated(DATA)
    made.registered([TICK])
    made.edits([EDIT])
    return made


class Tables:
    """Recovery tables in a guest, and this machine's journals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[FoundTable] = []
        self.guest = FakeTarget()

    def add(self, head: JournalHeader, *, damaged: bool = False) -> JournalState:
        """Put a table into the guest, and leave its journal elsewhere."""
        elsewhere = self.folder / f"elsewhere {len(self.found)}"
        made = journal(elsewhere, head)
        data = made.contents()
        made.close()
        addr = TABLE + 0x10000 * len(self.found)
        self.guest.memory[addr] = bytearray(data)
        said = read_header(header(addr, data))
        assert said is not None
        self.found.append(FoundTable(WHERE + 0x1000 * len(self.found), said))
        if damaged:
            self.guest.memory[addr][50] ^= 1
        return load(made.path)

    def adopt(self, *known: JournalState) -> list[JournalState]:
        return adopt_tables(self.found, self.guest, KEY, COOKIE, known)


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    monkeypatch.setattr(table_scan, "default_dir", lambda: tmp_path / "here")
    return Tables(tmp_path)


def test_only_journals_of_this_boot_that_are_not_known_are_adopted(tables: Tables) -> None:
    known = tables.add(HEADER)
    tables.add(replace(HEADER, token=b"token 02"))  # of the same process
    tables.add(replace(HEADER, cookie=b"another boot"))
    kept, adopted = tables.adopt(known)
    assert kept.header == known.header
    assert adopted.header == replace(HEADER, token=b"token 02", target=KEY), "it is found here by its name here"
    assert adopted.table == tables.found[1].where, "a second recovery sees by it whether the first has ended"
    assert adopted.path.parent == tables.folder / "here" and load(adopted.path) == adopted
    assert (adopted.allocations, adopted.registrations) == ((DATA,), (TICK,))
    assert [batch.edits for batch in adopted.batches] == [(EDIT,)]


def test_an_adopted_journal_is_known_by_its_token(tables: Tables) -> None:
    tables.add(HEADER)
    (adopted,) = tables.adopt()
    assert tables.adopt(adopted) == [adopted]


def test_journals_without_a_token_are_known_by_their_process(tables: Tables) -> None:
    known = tables.add(replace(HEADER, token=b""))
    assert len(tables.adopt(known)) == 1
    assert len(tables.adopt(replace(known, header=replace(known.header, host_pid=7)))) == 2


def test_a_damaged_table_is_refused_unless_a_journal_is_on_disk(tables: Tables) -> None:
    known = tables.add(HEADER, damaged=True)
    with pytest.raises(JournalError, match="damaged") as caught:
        tables.adopt()
    assert caught.value.hint == "reboot the guest"
    assert tables.adopt(known) == [known]


def test_a_journal_lists_what_its_table_lists(tmp_path: Path) -> None:
    """A snapshot from within the trace was loaded after the journal had noted its end."""
    made = journal(tmp_path)
    table = load(made.path)
    made.table_written(WHERE)
    assert with_table(load(made.path), table, WHERE) == load(made.path), "nothing is missing"
    made.reverted(0)
    made.unregistered([TICK])
    made.table_wiped()
    made.freed(DATA.addr)
    made.close()
    ended = load(made.path)
    assert not (ended.batches or ended.registrations or ended.allocations)
    again = with_table(ended, table, WHERE)
    assert (again.allocations, again.registrations, again.table) == ((DATA,), (TICK,), WHERE)
    assert [batch.edits for batch in again.batches] == [(EDIT,)]
    assert again == load(made.path)


def test_a_guest_without_readable_page_tables_has_no_table() -> None:
    target: Any = SimpleNamespace()
    kernel: Any = SimpleNamespace(address_space=SimpleNamespace(page_table_root=lambda: None))
    assert table_scan.find_tables(target, kernel) == []
    kernel = SimpleNamespace(address_space=SimpleNamespace(page_table_root=lambda: object()))
    assert table_scan.find_tables(target, kernel) == [], "a target without physical memory"
