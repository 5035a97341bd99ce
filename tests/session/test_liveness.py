"""How the end of a guest is noticed, and what is taken for it that is none."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.errors import GuestGone, TargetError, TargetLost
from probekit.guest import health
from probekit.guest.memory import PauseClock
from probekit.session import liveness
from probekit.session.identity import boot_cookie
from probekit.session.liveness import GuestLife
from tests.support.fake_target import FakeTarget

JIFFIES, PANIC_CPU = 0x1000, 0x1008


class _Machine(FakeTarget):
    """``status``: what the monitor says. ``on_stop``: what happens before each stop."""

    status = "paused"
    stops = 0

    def monitor(self, command: str) -> str:
        return f"VM status: {self.status}"

    def stop(self) -> None:
        self.stops += 1
        self.running = False
        self.on_stop(self)

    def resume(self) -> None:
        self.running = True

    def vcpus(self) -> tuple[int, ...]:
        return ()

    on_stop: Callable[[Any], None] = staticmethod(lambda machine: None)


class _Guest:
    """A guest whose kernel's base tells one boot from another."""

    def __init__(self, *events: Any) -> None:
        self.machine: Any = _Machine(memory={JIFFIES: bytearray(8) + bytearray(b"\xff" * 4)}, running=True)
        self.kernel: Any = SimpleNamespace(
            base=0xFFFF_FFFF_8100_0000,
            percpu_offsets=(),
            memory=None,
            btf=None,
            symbols=SimpleNamespace(addr=lambda name: None),
            find=lambda *names: {"jiffies_64": JIFFIES, "panic_cpu": PANIC_CPU}.get(names[0]),
            address_space=SimpleNamespace(translate=lambda addr: 0x100_0000),
        )
        self.events = list(events)
        qmp: Any = self if events else None
        self.life = GuestLife(
            self.machine,
            self.kernel,
            PauseClock(self.machine),
            boot_cookie(self.kernel),
            qmp=SimpleNamespace(events=self._told) if qmp else None,  # type: ignore[arg-type]
            read_stopped=self._read,
            read_running=self._read,
            read=self._read,
        )

    def _told(self) -> list[dict[str, str]]:
        event = self.events.pop(0)
        if isinstance(event, Exception):
            raise event
        return [{"event": event}]

    def _read(self, ranges: Any) -> list[bytes | None]:
        return [bytes(self.machine.memory[JIFFIES][addr - JIFFIES : addr - JIFFIES + size]) for addr, size in ranges]

    def tick(self) -> None:
        self.machine.memory[JIFFIES][0] += 1

    def boot_again(self) -> None:
        self.kernel.base += 0x20_0000


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_BETWEEN_TRIES", 0)
    monkeypatch.setattr(health, "_INTERVAL", 0.0)


@pytest.mark.parametrize(("event", "words"), [("RESET", "rebooted"), ("GUEST_PANICKED", "panicked")])
def test_what_qmp_says_is_noticed_without_a_stop_and_remembered(event: str, words: str) -> None:
    guest = _Guest("RESUME", event)
    guest.life.alive(False)
    assert guest.life.gone is None
    with pytest.raises(GuestGone, match=words) as caught:
        guest.life.alive(False)
    assert guest.life.gone is caught.value and guest.machine.stops == 0


def test_another_boot_is_another_guest() -> None:
    guest = _Guest()
    guest.machine.running = False
    guest.life.alive(True)
    guest.boot_again()
    with pytest.raises(GuestGone, match="rebooted"):
        guest.life.alive(True)
    assert guest.machine.stops == 3 and not guest.machine.running


def test_firmware_that_runs_for_a_moment_is_no_end() -> None:
    guest = _Guest()
    base = guest.kernel.base
    guest.boot_again()

    def back(machine: Any) -> None:
        guest.kernel.base = base

    guest.machine.running, guest.machine.on_stop = False, back
    guest.life.alive(True)
    assert guest.machine.stops == 1 and guest.life.gone is None


def test_a_panic_is_read_from_the_kernel_and_from_the_hypervisor() -> None:
    guest = _Guest()
    guest.machine.running = False
    guest.machine.memory[JIFFIES][8:12] = bytes(4)
    with pytest.raises(GuestGone, match="panicked"):
        guest.life.alive(True)
    guest = _Guest()
    guest.machine.running, guest.machine.status = False, "paused (guest-panicked)"
    with pytest.raises(GuestGone, match="panicked"):
        guest.life.alive(True)


def test_one_that_ticks_is_not_stopped_and_one_that_does_not_is_looked_at() -> None:
    guest = _Guest()
    for _ in range(3):
        guest.tick()
        assert guest.life.check()
    assert guest.machine.stops == 0
    assert not guest.life.check()
    assert guest.machine.stops == 1 and guest.machine.running


@pytest.mark.parametrize(
    ("told", "found"),
    [("SHUTDOWN", GuestGone), ("STOP", TargetLost), (TargetLost("qmp"), TargetLost), (TargetError("x"), TargetLost)],
)
def test_what_qmp_says_of_a_lost_connection(told: Any, found: type[Exception]) -> None:
    lost = TargetLost("the connection broke")
    why = _Guest(told).life.why_lost(lost)
    assert type(why) is found and (found is GuestGone or why is lost)
    assert _Guest().life.why_lost(lost) is lost
