"""A guest that ends while it is traced: how it ended is named soon, and what was collected is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psutil
import pytest

from probekit.target.qmp import Qmp
from tests.guest_fixtures import K61, K612
from tests.live.tool import Probekit
from vm.guest import Guest

pytestmark = pytest.mark.guest
Make = Callable[[str], Probekit]

LIMIT = 30.0  # seconds; on an idle machine it takes at most 4, but this one may be busy


def _qmp(guest: Guest, command: str, **arguments: object) -> None:
    with Qmp(guest.qmp2.removeprefix("unix:")) as qmp:
        qmp.execute(command, **arguments)


def _reset(guest: Guest) -> None:
    _qmp(guest, "set-action", reboot="reset")
    _qmp(guest, "system_reset")


def _reboot(guest: Guest) -> None:
    _qmp(guest, "set-action", reboot="reset")
    guest.spawn("sleep 0.2; reboot -f")


def _power_off(guest: Guest) -> None:
    _qmp(guest, "set-action", shutdown="poweroff")
    guest.spawn("sleep 0.2; poweroff -f")


def _power_off_and_pause(guest: Guest) -> None:
    guest.spawn("sleep 0.2; poweroff -f")


def _panic(guest: Guest) -> None:
    guest.spawn("sleep 0.2; echo c > /proc/sysrq-trigger")


def _kill(guest: Guest) -> None:
    psutil.Process(guest.pid).kill()


def _quit(guest: Guest) -> None:
    _qmp(guest, "quit")


ENDINGS = {
    "reset": (_reset, "rebooted"),
    "reboot": (_reboot, "rebooted"),
    "poweroff": (_power_off, "connection"),
    "poweroff to a pause": (_power_off_and_pause, "shut down"),
    "panic": (_panic, "panicked"),
    "kill": (_kill, "connection"),
    "quit": (_quit, "connection"),
}


@pytest.fixture
def doomed(qmp: bool) -> Iterator[Guest]:
    with (K61 if qmp else K612).boot() as guest:
        guest.spawn("mixed 600 2")
        yield guest


# Each boots a guest. For the stub a QEMU that quits is one that was killed, and QMP has one event for both reboots.
CASES = [(e, qmp) for e in ENDINGS for qmp in (False, True) if (e, qmp) not in (("quit", False), ("reboot", True))]


@pytest.mark.parametrize(
    ("ending", "qmp"), CASES, ids=[f"{ending}-{'qmp' if qmp else 'stub alone'}" for ending, qmp in CASES]
)
def test_how_it_ended_is_named_and_what_was_collected_is_shown(
    doomed: Guest, tool: Make, ending: str, qmp: bool
) -> None:
    end, said = ENDINGS[ending]
    probekit = tool(doomed.gdb)
    options = ("--qmp", doomed.qmp) if qmp else ()
    clauses = ("fbt::vfs_*:entry { @[probefunc] = count(); }", 'END { trace("end"); }')
    running = probekit.live(*clauses, options=options)
    # The aggregations of a guest that was booted anew are those of a copy that is made every two seconds.
    while len([line for line in running.lines if '"probe"' in line]) < 60:
        assert running.process.poll() is None
        running.live.clear()
        running.wait_live()
    end(doomed)
    done = running.finish(limit=LIMIT)
    assert done.status == 1, done.stderr
    # QMP's connection may end before the event has arrived.
    assert said in done.paragraph() or (qmp and "shut down" in done.paragraph())
    assert [event["data"] for event in done.fired("END")] == [["end"]]
    assert sum(done.table().values()) > 0
    # Whoever comes later is told as well, or finds nothing to do.
    assert "Traceback" not in probekit.recover("--timeout", "2").stderr
