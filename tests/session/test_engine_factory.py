"""What a run has to know of its engine before the engine is made."""

from __future__ import annotations

from typing import get_args

from probekit.session.engine_factory import ENGINES
from probekit.session.options import EngineName


def test_each_engine_has_its_kind() -> None:
    assert set(ENGINES) == set(get_args(EngineName))
