"""A probekit that does not look after its probes for some seconds: they fall silent by themselves, and come back."""

from __future__ import annotations

import signal
import time

import pytest

from tests.live.tool import Probekit
from vm.guest import Guest

pytestmark = pytest.mark.guest

SCRIPT = 'fbt::sys_getppid:entry /execname == "syscalls"/ { @[execname] = count(); }'
AWAY = 9.0  # five looks of a second each, and room


def _calls(guest: Guest, number: int) -> None:
    guest.check(f"syscalls {number} 0", timeout=60)


def test_silent_while_the_host_is_away_and_heard_again(guest: Guest, probekit: Probekit) -> None:
    running = probekit.live(SCRIPT)
    _calls(guest, 1000)
    running.signal(signal.SIGSTOP)
    time.sleep(AWAY)
    _calls(guest, 50_000)
    running.signal(signal.SIGCONT)
    time.sleep(3.5)
    _calls(guest, 700)
    done = running.finish(signal.SIGINT)
    assert done.status == 0, done.stderr
    assert done.table() == {("syscalls",): 1700}
    (drop,) = [event for event in done.of("drop") if event["kind"] == "silenced"]
    assert drop["total"] == 1


def test_a_killed_one_leaves_silence(guest: Guest, probekit: Probekit) -> None:
    """Recovered behind the silence: the timer goes before the memory that it calls into."""
    running = probekit.live(SCRIPT)
    running.process.kill()
    running.finish()
    time.sleep(AWAY)
    _calls(guest, 1000)
    (done,) = probekit.recover("--json").events
    assert done["problems"] == [] and done["restored"] == 1
    time.sleep(2.0)  # a timer that was left would run now, in memory that is gone
    assert guest.exec("true", timeout=30).status == 0
