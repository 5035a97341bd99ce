"""Rendering a run: where output goes, and the probes that cannot be enabled."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.cli.render import _refusals, _SinkAfterProgress, open_output
from probekit.errors import ProbekitError


def test_a_file_is_appended_to_and_keeps_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for text in ("one\n", "tw\udcffo\n"):
        with open_output(str(path)) as out:
            out.write(text)
    assert path.read_bytes() == b"one\ntw\xffo\n"


@pytest.mark.parametrize("name", ["missing/out", ".", "a\0b"])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProbekitError, match="failed to open output file"), open_output(f"{tmp_path}/{name}"):
        pass


def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    with pytest.raises(ProbekitError, match="cannot write /dev/full: No space"), open_output("/dev/full") as out:
        out.write("x")


def test_a_reader_that_went_away_is_told_from_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError), open_output(None) as out:
            out.write("x")
        os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())  # closing the pipe writes what is left


def test_standard_output_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with open_output(None) as found:
        found.write("x")
    assert not out.closed and out.getvalue() == "x"


def test_the_line_of_progress_goes_before_anything_is_printed() -> None:
    events: list[str] = []
    renderer: Any = SimpleNamespace(takes_text=True, printed=lambda text: events.append(text))
    progress: Any = SimpleNamespace(done=lambda: events.append("(done)"))
    sink = _SinkAfterProgress(renderer, progress)
    sink.printed("text")
    assert sink.takes_text and events == ["(done)", "text"]


def _run(*reasons: str) -> Any:
    refused = [
        SimpleNamespace(probe=SimpleNamespace(name=f"fbt::f{number}:entry"), reason=reason)
        for number, reason in enumerate(reasons)
    ]
    return SimpleNamespace(refused=refused)


def test_a_few_refused_probes_are_named_and_many_are_counted_by_reason() -> None:
    assert list(_refusals(_run("too short", "noinstr"))) == ["fbt::f0:entry: too short", "fbt::f1:entry: noinstr"]
    many = [f"too short ({number} bytes)" for number in range(8)] + ["noinstr"] * 3
    assert list(_refusals(_run(*many))) == ["8 not available: too short", "3 not available: noinstr"]
