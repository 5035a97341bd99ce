"""The form of the scripts under findings/ (findings/README.md). They themselves need the network and are not run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

FINDINGS = Path(__file__).parents[2] / "findings"
SCRIPTS = sorted(FINDINGS.glob("*.sh"))
FIELDS = ["finding", "about", "expected", "seen", "needs"]

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def header(script: Path) -> list[str]:
    """The comment lines between the first line and the first empty comment line, without their marks."""
    lines = script.read_text().splitlines()
    return [line.removeprefix("# ") for line in lines[1 : lines.index("#")]]


def rows() -> list[tuple[str, str]]:
    """The list in the README: each script's name, and what it says the script is about."""
    return re.findall(r"^\| `([\w.-]+\.sh)` \| (.*?) \|", (FINDINGS / "README.md").read_text(), re.MULTILINE)


def test_readme_lists_each_script_once_in_order() -> None:
    assert SCRIPTS
    assert [name for name, _ in rows()] == [script.name for script in SCRIPTS]


@each_script
def test_header_has_each_field_once_in_order(script: Path) -> None:
    lines = header(script)
    starts = [line for line in lines if not line.startswith("    ")]
    assert [line.partition(": ")[0] for line in starts] == FIELDS
    assert all(line.partition(": ")[2] for line in starts)


@each_script
def test_readme_and_header_name_the_same_versions(script: Path) -> None:
    versions = re.findall(r"\d+(?:\.\d+)+", dict(rows())[script.name])
    assert versions
    assert all(version in " ".join(header(script)) for version in versions)


@each_script
def test_script_is_executable_bash(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=20, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@each_script
def test_embedded_python_compiles(script: Path) -> None:
    parts = re.findall(r"'PYTHON'[^\n]*\n(.*?)^PYTHON$", script.read_text(), re.MULTILINE | re.DOTALL)
    assert parts
    for part in parts:
        compile(part, script.name, "exec")


@each_script
def test_script_cleans_up_and_stands_alone(script: Path) -> None:
    text = script.read_text()
    assert "set -euo pipefail\n\nwork=$(mktemp -d)\ntrap 'rm -rf \"$work\"' EXIT\n" in text
    assert not re.search(r"^\s*(?:source|\.)\s", text, re.MULTILINE)
    assert "probekit" not in text


@each_script
def test_pip_installs_pinned_versions(script: Path) -> None:
    text = script.read_text()
    for arguments in re.findall(r"pip\" install -q --disable-pip-version-check (.*?)>", text, re.DOTALL):
        packages = [word.strip('"') for word in arguments.replace("\\\n", " ").split()]
        assert packages and all("==" in package or package == "$@" for package in packages), packages
