"""Functions that the kernel calls: everything is in the journal before the kernel knows of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from probekit.enabling.guest_engine.callbacks import Callbacks
from probekit.errors import GuestError, InternalError, UnsupportedError
from probekit.guest.tracepoints import BatchRoutine, TracepointProbe
from probekit.patch.journal_payloads import MODULE, TRACEPOINT, Registration

ROUTINE = BatchRoutine(0x1000, 0x2000)
PROBES = (TracepointProbe(0x100, 0xA), TracepointProbe(0x200, 0xB, 7))


class World:
    """Notes what happens, in order. ``unloading``: a module that cannot be held."""

    def __init__(self, unloading: int = 0) -> None:
        self.events: list[object] = []
        self.routine: BatchRoutine | None = None
        self.unloading = unloading

    def add(self, items: list[Registration]) -> None:
        self.events += items

    def take(self, _point: object, _read: object, module: int) -> None:
        if module == self.unloading:
            raise GuestError("being unloaded")
        self.events.append(f"hold {module}")

    def register_probes(self, _point: object, probes: object, routine: BatchRoutine, _write: object) -> None:
        self.events.append(("connect", probes, routine))


def _callbacks(world: Any, *, services: bool = True, holds: bool = True) -> Callbacks:
    text: Any = SimpleNamespace(read_many=None, write_many=None)
    return Callbacks(world if services else None, world if holds else None, (5, 6), text, world)


def test_each_module_is_journaled_when_it_is_held() -> None:
    world = World()
    _callbacks(world).hold(SimpleNamespace())
    assert world.events == ["hold 5", Registration(MODULE, (5,)), "hold 6", Registration(MODULE, (6,))]


def test_a_module_that_is_being_unloaded_is_not_journaled() -> None:
    world = World(unloading=6)
    with pytest.raises(GuestError):
        _callbacks(world).hold(SimpleNamespace())
    assert world.events == ["hold 5", Registration(MODULE, (5,))]


def test_a_kernel_that_cannot_unload_modules_is_not_asked_to_hold_them() -> None:
    world = World()
    _callbacks(world, holds=False).hold(SimpleNamespace())
    assert world.events == []


def test_registrations_are_journaled_before_they_are_made() -> None:
    world = World()
    callbacks = _callbacks(world)
    callbacks.announce(PROBES, ROUTINE)
    callbacks.connect(SimpleNamespace())
    assert world.events == [
        Registration(TRACEPOINT, (0x100, 0xA, 0)),
        Registration(TRACEPOINT, (0x200, 0xB, 7)),
        ("connect", PROBES, ROUTINE),
    ]
    assert callbacks.announced and world.routine == ROUTINE


def test_without_tracepoints_only_a_program_that_needs_them_is_refused() -> None:
    callbacks = _callbacks(World(), services=False)
    callbacks.announce((), ROUTINE)
    assert not callbacks.announced
    with pytest.raises(UnsupportedError):
        callbacks.announce(PROBES, ROUTINE)


def test_what_was_not_announced_is_never_registered() -> None:
    with pytest.raises(InternalError):
        _callbacks(World()).connect(SimpleNamespace())
