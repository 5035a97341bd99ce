"""One command on a live guest calls what docs/architecture.md says, in that order."""

from __future__ import annotations

import pytest

from probekit.cli.main import main
from tests.docs.test_architecture import PAGE, check_order, first_calls, steps
from tests.guest_fixtures import K61, only
from vm.guest import Guest

pytestmark = pytest.mark.guest

SCRIPT = """
fbt::vfs_read:return /execname == "dd" && arg1 > 0/
{
	printf("%s %d\\n", execname, arg1);
	@[execname] = quantize(arg1);
	exit(0);
}
"""
WORK = "while :; do dd if=/dev/zero of=/dev/null bs=4096 count=6 2>/dev/null; usleep 10000; done"
SECTIONS = (
    "## The path of one command",
    "## The path of one patched byte",
    "### On the host",
    "## The path of one aggregation",
)


@only(K61)
def test_a_command_follows_its_paths(guest: Guest, homes: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    running = guest.spawn(WORK)
    try:
        ranks = first_calls(lambda: main(["-r", guest.gdb, "-n", SCRIPT]))
    finally:
        running.stop("KILL")
    printed = capfd.readouterr().out
    assert "dd 4096\n" in printed and "Distribution" in printed
    page = PAGE.read_text()
    for heading in SECTIONS:
        check_order(steps(page, heading), ranks)
