"""The host's side of the watchdog: what it writes, when, and what it counts as an absence."""

from __future__ import annotations

import struct
from typing import Any

from probekit.enabling.guest_engine.heartbeat import Heartbeat
from probekit.guest.watchdog import HEARTBEAT, SILENT, Watchdog, WatchdogServices, watchdog_code

START = 0xFFFFFFFF81000100
DATA, WORDS, FUNCTION = 0xFFFFC90000001000, 0xFFFFC90000001100, 0xFFFFFFFFC0000040


class Memory:
    """The words in a page of ours."""

    def __init__(self) -> None:
        self.data = bytearray(0x200)

    def read(self, addr: int, size: int) -> bytes:
        return bytes(self.data[addr - DATA : addr - DATA + size])

    def write(self, addr: int, data: bytes) -> None:
        self.data[addr - DATA : addr - DATA + len(data)] = data

    @property
    def activity(self) -> int:
        return int(struct.unpack_from("<Q", self.data, 0)[0])

    @activity.setter
    def activity(self, value: int) -> None:
        struct.pack_into("<Q", self.data, 0, value)

    @property
    def beats(self) -> int:
        return int(struct.unpack_from("<Q", self.data, WORDS - DATA + HEARTBEAT)[0])


def made(now: list[float], services: Any = None, registrations: Any = None) -> tuple[Heartbeat, Memory]:
    memory = Memory()
    shown: Any = memory
    return (
        Heartbeat(
            services,
            Watchdog(WORDS, FUNCTION),
            activity=DATA,
            memory=shown,
            registrations=registrations,
            clock=lambda: now[0],
        ),
        memory,
    )


def test_one_heartbeat_a_second_however_often_it_is_sent() -> None:
    now = [0.0]
    heartbeat, memory = made(now)
    for step in range(40):
        now[0] = step / 10
        heartbeat.send()
    assert memory.beats == 3 and heartbeat.timeouts == 0


def test_a_host_that_was_busy_before_anything_was_live_was_not_away() -> None:
    now = [0.0]
    heartbeat, memory = made(now)
    now[0] = 60.0
    memory.activity = SILENT
    heartbeat.restart()
    assert memory.activity == 0 and memory.beats == 1 and heartbeat.timeouts == 0


def test_an_absence_is_counted_and_the_guest_ends_it() -> None:
    now = [0.0]
    heartbeat, memory = made(now)
    now[0], memory.activity = 10.0, SILENT
    heartbeat.send()
    assert heartbeat.timeouts == 1 and memory.activity == SILENT, "the watchdog itself clears the word"


def test_what_exit_has_silenced_stays_silent() -> None:
    now = [0.0]
    heartbeat, memory = made(now)
    memory.activity = 1
    heartbeat.restart()
    now[0] = 5.0
    heartbeat.send()
    assert memory.activity == 1 and heartbeat.timeouts == 0


def test_the_journal_names_the_timer_before_it_runs() -> None:
    order: list[str] = []

    class Registrations:
        def add(self, items: Any) -> None:
            order.append("journal")

    class Text:
        def write_many(self, edits: Any) -> None:
            ((addr, code),) = edits
            assert addr == FUNCTION and code == watchdog_code(FUNCTION, words=WORDS, activity=DATA, start=START)
            order.append("code")

    class Point:
        def call(self, function: int, *args: int) -> int:
            order.append({1: "init", START: "start"}[function])
            return 0

    services = WatchdogServices(init=1, setup=True, start=START, cancel=3, size=64, function=40, base=48)
    heartbeat, _ = made([0.0], services, Registrations())
    point: Any = Point()
    text: Any = Text()
    heartbeat.start(point, text)
    assert order == ["code", "journal", "init", "start"]
