"""The scripts that ship with the product, each run as it stands on a guest that works."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from probekit.resources import data_dir
from tests.live.tool import Probekit
from vm.guest import Guest

pytestmark = pytest.mark.guest

# What each has to print of the work below, and its own arguments.
EXPECTED = {
    "allocs.d": (r"(?m)^(mixed|exe|sh) +vmlinux`\w+ +\d+$", ()),
    "execs.d": (r"(?m)^ *\d+ +\d+ +0 \S*/cat +\S*cat /no/such/file$", ()),
    "exits.d": (r"(?m)^ *[01] +\d+ false +1$", ()),
    "faults.d": (r"(?m)^(mixed|exe) +\d+ +\d+ +\d+$", ()),
    "flow.d": (r"(?s)-> do_sys_openat2 .*<- do_sys_openat2 .*<= openat", ("openat", "mixed")),
    "hotfuncs.d": (r"(?m)^  vfs_read +\d+$", ()),
    "offcpu.d": (r"(?s)sleep .*vmlinux`hrtimer_nanosleep.*\n +\d+\n", ("sleep",)),
    "oncpu.d": (r"(?m)^ +vmlinux`\w+\+0x[0-9a-f]+$", ()),
    "opens.d": (r"(?m)^ *\d+ cat +-2 /no/such/file$", ()),
    "readsize.d": (r"(?s)mixed .*Distribution", ()),
    "syscount.d": (r"(?m)^  __x64_sys_read +\d+$", ()),
    "syslat.d": (r"(?m)^  (clock_)?nanosleep +\d+ ns in all$", ("sleep",)),
}
SCRIPTS = sorted(path.name for path in data_dir("scripts").iterdir() if path.name.endswith(".d"))
WORK = "mkdir -p /tmp/s; for a in true false cat sleep; do ln -sf /bin/busybox /tmp/s/$a; done; mixed 900 1 & "
WORK += "while :; do /tmp/s/true; /tmp/s/false; /tmp/s/cat /no/such/file; /tmp/s/sleep 0.1; done"


@pytest.fixture(scope="module", autouse=True)
def load(guest: Guest) -> Iterator[None]:
    running = guest.spawn(WORK)
    yield
    running.stop("KILL")


def test_each_has_its_expectation() -> None:
    assert list(EXPECTED) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_says_what_it_promises(guest: Guest, probekit: Probekit, script: str) -> None:
    expected, arguments = EXPECTED[script]
    path = data_dir("scripts") / script
    done = probekit.run("-s", str(path), "-n", "tick-800ms { exit(0); }", *arguments)
    assert done.status == 0 and re.search(expected, done.stdout), (done.stdout[-3000:], done.stderr)
    assert [line for line in done.said if " matched " not in line] == []
