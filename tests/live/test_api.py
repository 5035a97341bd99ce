"""The examples of docs/api.md and README.md that need a guest run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.docs.test_api import PROGRAMS
from tests.guest_fixtures import K61, only
from vm.guest import Guest

pytestmark = pytest.mark.guest

README = (Path(__file__).parents[2] / "README.md").read_text()
(IN_README,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SPEC = "unix:/run/vm/gdb.sock"


def _run(guest: Guest, homes: dict[str, str], program: str) -> str:
    """Run an example beside programs that start and call getppid; what it prints."""
    assert SPEC in program
    text = program.replace(SPEC, guest.gdb).replace("seconds=10", "seconds=2")
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            guest.check("syscalls 20 0", timeout=60)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        done = subprocess.run(
            [sys.executable, "-c", text], env={**os.environ, **homes}, capture_output=True, text=True, timeout=120
        )
    finally:
        over.set()
        worker.join()
    assert done.returncode == 0, done.stderr
    return done.stdout


@only(K61)
def test_aggregations_of_all_system_calls(guest: Guest, homes: dict[str, str]) -> None:
    for program in (PROGRAMS[0], IN_README):
        printed = _run(guest, homes, program)
        assert "Attached(what=" in printed and "Stats(values=" in printed
        assert re.search(r"\('\w*sys_getppid',\): \d\d", printed), printed[-3000:]


@only(K61)
def test_events_and_the_exit_status(guest: Guest, homes: dict[str, str]) -> None:
    *fired, last = _run(guest, homes, PROGRAMS[1]).splitlines()
    lines = [line for line in fired if line]
    assert [x for x in lines if not re.fullmatch(r"\d syscall:vmlinux:getppid:entry \S+ \d+", x)] == []
    assert sum(" syscalls " in line for line in lines) >= 20
    assert re.fullmatch(r"3 \d+", last)


@only(K61)
def test_the_list_of_probes(guest: Guest, homes: dict[str, str]) -> None:
    listed = [line.split() for line in _run(guest, homes, PROGRAMS[2]).splitlines()]
    assert [line[1:] for line in listed] == [
        ["fbt:vmlinux:vfs_read:entry", "entry"],
        ["fbt:vmlinux:vfs_read:return", "return"],
    ]
