"""The frame of a thunk: where registers and clause-local integers are, and its bound."""

from __future__ import annotations

import pytest

from probekit.errors import UnsupportedError
from tests.codegen.machine import Machine


def test_too_much_stack() -> None:
    chosen = ", ".join(f"arg{n % 6} ? {n} : -{n}" for n in range(300))
    with pytest.raises(UnsupportedError) as caught:
        Machine(f"fbt::: {{ @[{chosen}] = count(); }}")
    assert caught.value.feature == "stack"
