"""Progress on stderr, which may be gone."""

from __future__ import annotations

import errno
import io
import sys

import pytest

from probekit.cli.progress import Progress


class _Gone(io.StringIO):
    """A stream whose reader has gone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def isatty(self) -> bool:
        return True

    def write(self, _text: str) -> int:
        raise OSError(self._number, "gone")


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EBADF])
@pytest.mark.parametrize("verbose", [True, False])
def test_a_stderr_that_cannot_be_written_stops_nothing(
    number: int, verbose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", _Gone(number))
    monkeypatch.setattr("probekit.cli.progress._QUIET_S", -1.0)
    progress = Progress(verbose=verbose)
    progress("restoring the guest")
    progress.done()


def test_each_step_is_a_line_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(verbose=True)("connecting")
    said = capsys.readouterr().err
    assert said.startswith("probekit: [") and said.endswith(" s] connecting\n")
