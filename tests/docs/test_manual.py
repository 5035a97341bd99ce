"""The manual page is sound, and says all that there is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from probekit.cli.args import _RECOVER, _TRACE
from probekit.cli.help import TRACE_HELP
from probekit.session.options import OPTIONS

PAGE = Path(__file__).parents[2] / "docs" / "probekit.1"


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_groff_has_no_warning() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-z", str(PAGE)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_every_flag_is_in_the_manual_and_in_the_help() -> None:
    page = PAGE.read_text().replace("\\-", "-")
    for flag in {*_TRACE, *_RECOVER} - {"--remote", "--help", "-3", "-6", "-h", "-G", "-a", "-A"}:
        assert flag in page, flag
        assert flag in TRACE_HELP, flag


def test_every_option_with_an_effect_is_in_the_manual() -> None:
    page = PAGE.read_text()
    own = ("libdir", "safepoint")  # the one is -L, the other ours
    missing = [name for name, info in OPTIONS.items() if info.field and name not in own and name not in page]
    assert not missing
