"""The connection is cut: said at once, and put right by ``probekit recover``."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.guest_fixtures import K61, only
from tests.live.proxy import Proxy
from tests.live.refusal import refused
from tests.live.tool import Probekit
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = [pytest.mark.guest, only(K61)]

CLAUSE = "fbt::sys_*: { @[probefunc] = count(); }"


def _recovered(tool: Probekit, guest: Guest, before: bytes) -> None:
    done = tool.recover("--json")
    assert done.status == 0 and done.events[0]["problems"] == [], done.stderr
    assert differences(before, KernelCode.locate(guest).read()) == []
    assert guest.exec("true", timeout=30).status == 0
    assert tool.recover("--json").events[0]["clean"]


def test_cut_while_it_traces(guest: Guest, probekit: Probekit, tmp_path: Path) -> None:
    before = KernelCode.locate(guest).read()
    with Proxy(tmp_path / "s", guest.gdb) as proxy:
        tool = Probekit(proxy.spec, probekit.env)
        running = tool.live(CLAUSE)
        proxy.cut()
        done = running.finish(limit=20)
        refused(done, "connection")
        assert "recover" in done.stderr
        # Through the same name, as a network would come back.
        _recovered(tool, guest, before)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.97])
def test_cut_at_any_byte(guest: Guest, probekit: Probekit, tmp_path: Path, share: float) -> None:
    """``share``: of what a whole run sends and receives."""
    before = KernelCode.locate(guest).read()
    whole = _WHOLE.get(guest.pid)
    if whole is None:
        with Proxy(tmp_path / "whole", guest.gdb) as proxy:
            assert Probekit(proxy.spec, probekit.env).run("-n", CLAUSE, "-n", "tick-100ms { exit(0); }").status == 0
            whole = _WHOLE[guest.pid] = proxy.passed
    with Proxy(tmp_path / "s", guest.gdb, limit=int(whole * share)) as proxy:
        tool = Probekit(proxy.spec, probekit.env)
        done = tool.run("-n", CLAUSE, "-n", "tick-100ms { exit(0); }", limit=40)
        assert done.status == 1 and done.paragraph()
        proxy.forget_limit()
        time.sleep(0.1)
        _recovered(tool, guest, before)


_WHOLE: dict[int, int] = {}
"""By guest: bytes of a whole run."""
