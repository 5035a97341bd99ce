"""What a script does through its output: commands, files, options."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from probekit.errors import ProbekitError
from probekit.output import effects as module
from probekit.output.api import TextStyle
from probekit.output.effects import HostEffects, NoEffects


def test_freopen_appends_to_a_file_and_an_empty_name_goes_back(tmp_path: Path) -> None:
    first = io.StringIO()
    effects = HostEffects(first)
    (tmp_path / "a").write_text("before ")
    opened = effects.reopen(str(tmp_path / "a"))
    opened.write("after")
    other = effects.reopen(str(tmp_path / "b"))
    assert opened.closed and (tmp_path / "a").read_text() == "before after"
    assert effects.reopen("") is first and other.closed


def test_a_file_that_cannot_be_opened_leaves_the_last_one_open(tmp_path: Path) -> None:
    effects = HostEffects(io.StringIO())
    opened = effects.reopen(str(tmp_path / "a"))
    with pytest.raises(OSError, match="No such file"):
        effects.reopen(str(tmp_path / "no" / "such"))
    opened.write("still")
    effects.close()
    effects.close()
    assert (tmp_path / "a").read_text() == "still"


def test_ftruncate_empties_a_file_and_leaves_what_is_none_alone(tmp_path: Path) -> None:
    effects = HostEffects(io.StringIO())
    out = effects.reopen(str(tmp_path / "a"))
    out.write("gone")
    effects.truncate(out)
    out.write("new")
    effects.close()
    assert (tmp_path / "a").read_text() == "new"

    class _Pipe(io.StringIO):
        def seekable(self) -> bool:
            return False

    pipe = _Pipe("kept")
    effects.truncate(pipe)
    assert pipe.getvalue() == "kept"


def test_while_a_command_runs_it_is_waited_for_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the guest's watchdog hears of us while a script's command takes long."""
    monkeypatch.setattr(module, "_LONGEST_WAIT", 0.01)
    go, turns = tmp_path / "go", []

    def waiting() -> None:
        turns.append(None)
        if len(turns) == 3:
            go.touch()

    HostEffects(io.StringIO(), waiting=waiting).run(f"while ! test -e {go}; do sleep 0.01; done")
    assert len(turns) >= 3


def test_a_command_runs_in_a_shell(tmp_path: Path) -> None:
    effects = HostEffects(io.StringIO())
    effects.run(f"echo $((1 + 2)) > {tmp_path / 'a'}; exit 5")
    assert (tmp_path / "a").read_text() == "3\n"
    with pytest.raises(ProbekitError, match="failed to run"):
        effects.run("a\0b")


def test_a_command_is_left_to_itself_when_the_guest_is_to_be_restored(tmp_path: Path) -> None:
    """It ends all the same, and is waited for in the end."""
    effects = HostEffects(io.StringIO(), hurry=lambda: True)
    effects.run(f"while ! [ -e {tmp_path}/go ]; do sleep 0.05; done; touch {tmp_path}/ended")
    assert not (tmp_path / "ended").exists()
    (tmp_path / "go").touch()
    effects.close()
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("quiet", "", TextStyle(quiet=True)),
        ("quiet", "off", TextStyle()),
        ("flowindent", "1", TextStyle(flow=True)),
        ("rawbytes", "yes", TextStyle(raw_bytes=True)),
        ("aggzoom", "set", TextStyle(zoom=True)),
        ("stackindent", "3", TextStyle(stack_indent=3)),
        ("stackindent", "wide", TextStyle()),
        ("bufsize", "4m", TextStyle()),
    ],
)
def test_setopt_changes_what_text_looks_like(name: str, value: str, expected: TextStyle) -> None:
    assert HostEffects(io.StringIO()).restyle(TextStyle(), name, value) == expected
    assert NoEffects().restyle(TextStyle(), name, value) == TextStyle()


def test_without_effects_no_file_is_opened() -> None:
    with pytest.raises(OSError, match="files cannot be opened here"):
        NoEffects().reopen("a")
