"""A recovery of several journals: the newest first, those of a former boot put away, everything added up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.session import recover as module
from probekit.session.undo import Recovered

HERE, BEFORE = b"this boot", b"another boot"


def _journal(folder: Path, name: str, cookie: bytes) -> Any:
    path = folder / name
    path.write_bytes(b"journal")
    return SimpleNamespace(path=path, header=SimpleNamespace(cookie=cookie))


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the journals that were undone, in order."""
    names: list[str] = []

    def undo(_target: object, _text: object, state: Any, _facts: object, *, limit: float) -> Recovered:
        assert limit == 5
        names.append(state.path.name)
        return Recovered(journals=1, restored=3, already=1, freed=4096, tasks=1, problems=(state.path.name,))

    monkeypatch.setattr(module, "boot_cookie", lambda _kernel: HERE)
    monkeypatch.setattr(module, "undo_journal", undo)
    monkeypatch.setattr(module, "KernelText", lambda *_: None)
    return names


def _recover(*states: Any) -> Recovered:
    kernel: Any = SimpleNamespace(address_space=None, symbol=lambda _name: 0)
    return module._recover_all(SimpleNamespace(), kernel, list(states), 5)


def test_the_newest_journal_is_undone_first_and_all_is_added_up(tmp_path: Path, undone: list[str]) -> None:
    total = _recover(_journal(tmp_path, "old", HERE), _journal(tmp_path, "new", HERE))
    assert undone == ["new", "old"]
    assert total == Recovered(
        journals=2, restored=6, already=2, freed=8192, tasks=2, rebooted=0, problems=("new", "old")
    )


def test_the_journal_of_a_former_boot_is_only_put_away(tmp_path: Path, undone: list[str]) -> None:
    former = _journal(tmp_path, "former", BEFORE)
    total = _recover(former, _journal(tmp_path, "this", HERE))
    assert undone == ["this"], "the addresses of a former boot mean something else now"
    assert (total.journals, total.rebooted, total.restored) == (2, 1, 3)
    assert not former.path.exists()


def test_nothing_to_undo_is_clean(undone: list[str]) -> None:
    assert _recover().clean and not undone
