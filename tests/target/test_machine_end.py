"""A machine that ends while it is attached, seen by both transports."""

from __future__ import annotations

import contextlib

import pytest

from probekit.errors import TargetLost
from probekit.target.connect import connect
from probekit.target.qmp import Qmp
from vm.guest import Guest

pytestmark = pytest.mark.guest


def test_a_machine_that_ends_is_lost(transport: str) -> None:
    with Guest.start(kernel="6.1-cloud") as guest:
        target = connect(guest.gdb if transport == "rsp" else f"gdb:{guest.gdb}", timeout=10)
        target.resume()
        with Qmp(guest.qmp.removeprefix("unix:")) as qmp, contextlib.suppress(TargetLost):
            qmp.execute("quit")
        try:
            reason = target.wait(10)
            assert reason is not None and reason.kind == "exited"
        except TargetLost:
            pass
        assert not target.running
        with pytest.raises(TargetLost):
            target.vcpus()
        target.detach()
