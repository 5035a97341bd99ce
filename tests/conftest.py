"""Options, profiles and fixtures of the whole suite, and which of its processes does what."""

from __future__ import annotations

import gc
import re
from typing import Any

import pytest
from hypothesis import settings

_USUAL_GUEST = re.compile(r"6\.12?-cloud(?!-(?:st|pti))")
# So that all have as much to do.
_ALONE = tuple(f"tests/live/test_{name}.py" for name in ("stages", "markers", "nmi"))
# What takes longest is begun first: the end is a short one for all.
_LONG = ("6.1-cloud", "6.12-cloud", *_ALONE, "tests/live/test_tracepoints.py")
_FIRST = {scope: rank for rank, scope in enumerate(_LONG)}

pytest_plugins = ("tests.reporting", "tests.guest_fixtures")

# Property tests are not timed one by one: a busy machine is no defect.
settings.register_profile("probekit", deadline=None)
settings.load_profile("probekit")

# A kernel has 50,000 functions, and none of them is part of a cycle: looking for some takes a third of a test's time.
gc.set_threshold(200_000, 20, 20)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("probekit")
    group.addoption("--update-golden", action="store_true", help="write what came out into the golden files")
    group.addoption(
        "--nmis", type=int, default=10_000, help="how many non-maskable interrupts are injected, in all guests"
    )
    group.addoption("--soak", type=float, default=30, help="seconds of everything at once under a mixed load")
    group.addoption(
        "--activations", type=int, default=300, help="how often a marker is switched under full speed, in all guests"
    )
    group.addoption("--faults", type=int, default=8, help="how many system calls are the last or fail")
    group.addoption("--fault-seed", type=int, default=None, help="choose the same points again")
    group.addoption(
        "--kills", type=int, default=6, help="how many times probekit is killed at a random moment, in all guests"
    )


def _scope(nodeid: str) -> str:
    """What one process does from beginning to end."""
    module = nodeid.partition("::")[0]
    usual = _USUAL_GUEST.search(nodeid)
    return usual.group() if usual and module not in _ALONE else module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _FIRST.get(_scope(item.nodeid), len(_FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes, each of the two usual kinds of guest has one, so that it is booted once.

    All else goes by whole modules to whoever has time: those of other guests, two long ones, and what needs no guest.
    xdist's own groups are written into the items' ids, which newer pytest versions do not take from there any more.
    """
    from xdist.scheduler import LoadScopeScheduling  # not there without xdist

    class ByGuest(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _scope(nodeid)

    return ByGuest(config, log)
