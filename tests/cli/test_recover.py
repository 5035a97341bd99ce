"""``probekit recover``: what it says, as text and as JSON, and its exit status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from probekit.cli import recover as module
from probekit.cli.args import UsageError, parse
from probekit.session.undo import Recovered

_DONE = Recovered(journals=3, restored=4, already=2, freed=4096, tasks=1, rebooted=1)


def _run(monkeypatch: pytest.MonkeyPatch, done: Recovered, *argv: str) -> int:
    asked: list[str] = []

    def recover(spec: str, _options: Any) -> Recovered:
        asked.append(spec)
        return done

    monkeypatch.setattr(module, "recover", recover)
    status = module.recover_command(parse(["recover", "-r", "localhost:1", *argv])[1])
    assert asked == ["localhost:1"]
    return status


def test_everything_that_was_done_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, _DONE) == 0
    assert capsys.readouterr().out.splitlines() == [
        "probekit: 1 journal(s) of a guest that has rebooted since: there is nothing to restore",
        "probekit: 4 sites restored, 2 had their original bytes already",
        "probekit: 1 borrowed task(s) given back",
        "probekit: 4096 bytes of guest memory freed",
    ]


def test_a_clean_guest_is_said_to_be_clean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, Recovered()) == 0
    assert "nothing to recover" in capsys.readouterr().out


def test_a_journal_of_a_former_boot_alone_restores_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, Recovered(journals=1, rebooted=1)) == 0
    assert "restored" not in capsys.readouterr().out


def test_a_problem_is_named_and_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, Recovered(journals=1, problems=("a site has other bytes",))) == 1
    assert "could not be restored: a site has other bytes" in capsys.readouterr().out


def test_json_has_every_number_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, _DONE, "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["type"], found["clean"], found["restored"], found["freed"]) == ("recovered", False, 4, 4096)
    assert out.count("\n") == 1 and err == ""


def test_no_guest_cannot_be_recovered() -> None:
    with pytest.raises(UsageError, match="names no guest"):
        module.recover_command(parse(["recover", "-r", "none"])[1])
