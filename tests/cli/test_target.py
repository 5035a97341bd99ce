"""Which guest a command line means: named, from the environment, or the only one of this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.cli.args import Arguments, UsageError, parse
from probekit.cli.progress import Progress
from probekit.cli.target import NO_GUEST, attach_options, found_guest, target_of
from probekit.errors import ProbekitError


def _parsed(argv: list[str]) -> Arguments:
    return parse(argv)[1]


def test_an_option_is_stronger_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBEKIT_TARGET", "localhost:1")
    assert target_of(_parsed(["-l", "-r", "unix:/run/gdb"])) == "unix:/run/gdb"
    assert target_of(_parsed(["-l"])) == "localhost:1"
    monkeypatch.delenv("PROBEKIT_TARGET")
    assert target_of(_parsed(["-l"])) == ""


def test_a_malformed_target_is_refused_and_none_is_no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    assert target_of(_parsed(["-l", "-r", NO_GUEST])) == NO_GUEST
    monkeypatch.setenv("PROBEKIT_TARGET", "nonsense")
    with pytest.raises(ProbekitError):
        target_of(_parsed(["-l"]))


def test_the_only_guest_is_named_unless_it_should_be_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("probekit.target.discovery.only_guest", lambda: ("localhost:1234", "vm1 (pid 3)"))
    assert found_guest(quiet=False) == "localhost:1234"
    assert capsys.readouterr().err == "probekit: guest vm1 (pid 3): localhost:1234\n"
    assert found_guest(quiet=True) == "localhost:1234"
    assert capsys.readouterr().err == ""


def test_no_guest_or_several_are_a_usage_error_with_the_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[str, str]:
        raise ProbekitError("no QEMU runs on this host", hint="name one with -r")

    monkeypatch.setattr("probekit.target.discovery.only_guest", none)
    with pytest.raises(UsageError, match="no QEMU") as caught:
        found_guest(quiet=True)
    assert caught.value.usage == "name one with -r"


def test_options_of_the_command_line_are_options_of_the_attachment() -> None:
    progress = Progress(verbose=False)
    plain = attach_options(_parsed(["-l"]), progress)
    assert (plain.symbols, plain.cache, plain.progress) == (None, True, progress)
    given = attach_options(_parsed(["-l", "--symbols", "/tmp/map", "--no-cache"]), progress)
    assert (given.symbols, given.cache) == (Path("/tmp/map"), False)
