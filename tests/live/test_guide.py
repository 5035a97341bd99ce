"""The examples of the language guide that need a guest print what stands below them, on each kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.test_language import EXAMPLES, Example
from tests.live.tool import Probekit
from vm.guest import Guest

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.guest], ids=lambda e: f"line-{e.line}")
def test_prints_what_it_says(guest: Guest, probekit: Probekit, example: Example, tmp_path: Path) -> None:
    script = tmp_path / "x.d"
    script.write_text(example.script)
    done = probekit.run("-q", "-s", str(script), *example.flags)
    assert (done.stdout, done.status) == (example.output, example.status), done.stderr
