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
    group.addoption("--kills", type=int, default=20, help="how many times probekit is killed at a random moment")
