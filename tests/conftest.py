"""Options, profiles and fixtures of the whole suite."""

from __future__ import annotations

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share the work: one has the tests on 6.1 guests, the other all else that needs a guest.

    So no guest is booted twice. What needs none is done by whichever has time.
    """
    for item in items:
        if item.get_closest_marker("guest") is not None:
            item.add_marker(pytest.mark.xdist_group("6.1" if "6.1-" in item.name else "others"))
