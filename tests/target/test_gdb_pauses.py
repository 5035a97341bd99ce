"""What gdb says about a machine that somebody else has paused, with a gdb of the tests' own."""

from __future__ import annotations

import pytest

from probekit.errors import Cancelled, TargetError
from probekit.target.gdb_pauses import GdbPauses


class _Gdb:
    """``status``: what the monitor says, None where there is none. ``dropped``: gdb will drop a stop packet."""

    def __init__(self, status: str | None = "paused", version: str = "7.2.22") -> None:
        self.status = status
        self.version = version
        self.dropped = False
        self.debug = False
        self.log = ""

    def console(self, command: str) -> str:
        if command.startswith("set debug remote"):
            self.debug = command.endswith("1")
            return ""
        if self.status is None:
            raise TargetError("Target does not support this command.")
        if self.dropped and self.debug:
            self.log, self.dropped = "[remote] putpkt_binary: Packet instead of Ack, ignoring it\\n", False
        return {"monitor info status": f"VM status: {self.status}\n", "monitor info version": self.version}[command]

    def take_log(self) -> str:
        log, self.log = self.log, ""
        return log


def pauses(gdb: _Gdb) -> GdbPauses:
    return GdbPauses(gdb)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gdb", "stop_seen", "paused"),
    [
        (_Gdb(), False, True),
        (_Gdb(), True, False),
        (_Gdb(version="11.1.3"), False, False),
        (_Gdb("paused (prelaunch)", "11.1.3"), False, True),
        (_Gdb(None), False, False),
    ],
)
def test_how_it_was_found(gdb: _Gdb, stop_seen: bool, paused: bool) -> None:
    found = pauses(gdb)
    found.note_connected(stop_seen=stop_seen, was_running=None)
    assert found.paused is paused
    found.note_connected(stop_seen=stop_seen, was_running=paused)
    assert found.paused is not paused, "who knows better is believed"


def test_a_pause_ends_when_gdb_drops_a_stop_packet() -> None:
    gdb = _Gdb()
    found = pauses(gdb)
    found.note_connected(stop_seen=False, was_running=None)
    found.look()
    assert found.paused and not found.may_run() and not gdb.debug
    gdb.dropped = True
    found.look()
    assert not found.paused and found.may_run() and not gdb.debug


def test_a_migration_that_is_over() -> None:
    gdb = _Gdb("paused (postmigrate)")
    found = pauses(gdb)
    assert not found.may_run() and found.paused


def test_which_stops_are_pauses() -> None:
    found = pauses(_Gdb())
    assert found.is_pause({"signal-name": "SIGINT"})
    assert not found.is_pause({"signal-name": "SIGTRAP"}) and not found.is_pause({"reason": "breakpoint-hit"})
    assert not pauses(_Gdb(None)).is_pause({"signal-name": "SIGINT"}), "another stub's stop is a stop"


def test_a_gdb_that_was_given_up_is_asked_nothing_more() -> None:
    gdb = _Gdb()

    def give_up() -> None:
        raise Cancelled("interrupted")

    with pytest.raises(Cancelled):
        pauses(gdb).stop_seen(give_up)
    assert gdb.debug, "it may still be waiting for the stub"
