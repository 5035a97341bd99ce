"""When the guest is looked at more closely, and what is found."""

from __future__ import annotations

from itertools import count

import pytest

from probekit.errors import GuestError
from probekit.guest.health import LivenessMonitor


class _Guest:
    """``ticks``: None where they cannot be read."""

    ticks: int | None = 5
    same = True
    panicked = False

    def heartbeat(self) -> LivenessMonitor:
        """One whose clock is far ahead with each question."""
        seconds = count(0, 10)
        return LivenessMonitor(
            lambda: self.ticks, lambda: self.same, lambda: self.panicked, lambda: float(next(seconds))
        )


def test_a_guest_that_ticks_is_left_alone() -> None:
    guest = _Guest()
    heart = guest.heartbeat()
    for guest.ticks in (5, 6, 7):
        assert not heart.due()
    assert heart.due(), "it has not moved"
    guest.ticks = None
    assert heart.due(), "nothing is known"
    heart.look()


def test_a_guest_that_hangs_after_a_panic_ticks_on() -> None:
    guest = _Guest()
    heart = guest.heartbeat()
    assert not heart.due()
    guest.ticks, guest.panicked = 6, True
    assert heart.due()
    with pytest.raises(GuestError, match="panicked"):
        heart.look()


def test_a_rebooted_guest() -> None:
    guest = _Guest()
    guest.same = False
    with pytest.raises(GuestError, match="rebooted"):
        guest.heartbeat().look()


def test_time_that_went_backwards() -> None:
    """A snapshot was loaded: seen by the RAM file, or else at the next look."""
    guest = _Guest()
    heart = guest.heartbeat()
    for guest.ticks in (50, 60):
        assert not heart.due()
    guest.ticks = 55
    assert heart.due()
    with pytest.raises(GuestError, match="snapshot"):
        heart.look()

    ticks = iter((70, 80, 75))
    seconds = count(0, 10)
    heart = LivenessMonitor(
        lambda: None, lambda: True, lambda: False, lambda: float(next(seconds)), stopped_ticks=lambda: next(ticks)
    )
    for _ in range(2):
        assert heart.due()
        heart.look()
    with pytest.raises(GuestError, match="snapshot"):
        heart.look()
