"""Programs that need no guest, run as from the command line: tests/data/run/*.test.

[case name]
-q args ...          what stands behind -s FILE, shell words
BEGIN { ... }        the script
[out]
...                  what it prints; then "!" lines: standard error; then its exit status, if not 0
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from probekit.cli.main import main
from tests.support.golden import Case, check_case, load_cases


@pytest.mark.parametrize("case", load_cases("run"), ids=str)
def test_a_script_prints_what_its_case_says(
    case: Case,
    tmp_path: Path,
    homes: object,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    first, _, script = case.text.partition("\n")
    monkeypatch.chdir(tmp_path)
    Path("t.d").write_text(script, "utf-8")
    capfd.readouterr()
    status = main(["-r", "none", "-xerrtags", "-s", "t.d", *shlex.split(first)])
    out, err = capfd.readouterr()
    shown = out + ("" if out.endswith("\n") or not out else "\n")
    # How late ticks were depends on how busy this machine is.
    shown += "".join(f"! {line}\n" for line in err.splitlines() if " missed firing" not in line)
    check_case(case, shown + (f"status {status}\n" if status else ""), request)
