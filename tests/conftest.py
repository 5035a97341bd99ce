"""Options, profiles and fixtures of the whole suite, and which of two processes does what."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

pytest_plugins = ("tests.guest_fixtures",)

# Property tests are not timed one by one: a busy machine is no defect.
settings.register_profile("probekit", deadline=None)
settings.load_profile("probekit")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("probekit")
    group.addoption("--update-golden", action="store_true", help="write what came out into the golden files")
    group.addoption("--nmis", type=int, default=10_000, help="how many non-maskable interrupts are injected")
    group.addoption("--soak", type=float, default=30, help="seconds of everything at once under a mixed load")
    group.addoption("--activations", type=int, default=400, help="how often a marker is switched under full speed")
    group.addoption("--kills", type=int, default=20, help="how many times probekit is killed at a random moment")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes, the tests of one kind of guest stay in one, so that no guest is booted twice.

    xdist's own groups are written into the items' ids, which newer pytest versions do not
    take from there any more; here the id itself says which guest a test is for.
    """
    from xdist.scheduler import LoadScopeScheduling  # not there without xdist

    class ByGuest(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if "6.1-" in nodeid:
                return "6.1"
            if "6.12-" in nodeid:
                return "6.12"
            # Modules with machines of their own, whole; what needs none is done by whoever has time.
            return nodeid.partition("::")[0]

    return ByGuest(config, log)
