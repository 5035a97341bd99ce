"""Recovery tables in a guest: those whose journal is not known are adopted, damaged ones are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.errors import JournalError
from probekit.session import table_scan

COOKIE = b"this boot"


class Header:
    """The header of a table that holds ``data``."""

    def __init__(self, data: bytes, *, fits: bool = True) -> None:
        self.addr, self.size, self.data = 0x1000, len(data), data
        self._fits = fits

    def fits(self, data: bytes) -> bool:
        return self._fits and data == self.data


def _state(pid: int, cookie: bytes = COOKIE) -> Any:
    return SimpleNamespace(header=SimpleNamespace(host_pid=pid, host_start=1.0, cookie=cookie))


@pytest.fixture
def adopt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Adopts the tables of some headers. A table's bytes are the process id of its journal and its boot."""

    def parse(data: bytes) -> Any:
        pid, _, cookie = data.partition(b" ")
        return _state(int(pid), cookie)

    def run(headers: list[Header], known: list[Any]) -> list[bytes]:
        texts = iter([header.data for header in headers])
        text = SimpleNamespace(read_many=lambda ranges: [next(texts)[: ranges[0][1]]])
        monkeypatch.setattr(table_scan, "find_tables", lambda _target, _kernel: headers)
        monkeypatch.setattr(table_scan, "KernelText", lambda *_: text)
        monkeypatch.setattr(table_scan, "parse", parse)
        monkeypatch.setattr(table_scan, "default_dir", lambda: tmp_path)
        monkeypatch.setattr(table_scan, "Journal", SimpleNamespace(adopt=lambda _folder, data: data))
        kernel: Any = SimpleNamespace(address_space=None, symbol=lambda _name: 0)
        return list(table_scan.adopt_tables(SimpleNamespace(), kernel, COOKIE, known))

    return run


def test_only_journals_of_this_boot_that_are_not_known_are_adopted(adopt: Any) -> None:
    tables = [Header(b"1 this boot"), Header(b"2 this boot"), Header(b"3 another boot")]
    assert adopt(tables, [_state(1)]) == [b"2 this boot"]
    assert adopt(tables, [_state(1, b"another boot")]) == [b"1 this boot", b"2 this boot"]


def test_a_damaged_table_is_refused_unless_a_journal_is_on_disk(adopt: Any) -> None:
    with pytest.raises(JournalError, match="damaged") as caught:
        adopt([Header(b"1 this boot", fits=False)], [])
    assert caught.value.hint == "reboot the guest"
    assert adopt([Header(b"1 this boot", fits=False), Header(b"2 this boot")], [_state(1)]) == [b"2 this boot"]


def test_a_guest_without_readable_page_tables_has_no_table() -> None:
    kernel: Any = SimpleNamespace(address_space=SimpleNamespace(page_table_root=lambda: None))
    assert table_scan.find_tables(SimpleNamespace(), kernel) == []
    kernel = SimpleNamespace(address_space=SimpleNamespace(page_table_root=lambda: object()))
    assert table_scan.find_tables(SimpleNamespace(), kernel) == [], "a target without physical memory"
