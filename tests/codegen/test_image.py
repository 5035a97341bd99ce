"""The code of one enabling: its routines and thunks, and its bound."""

from __future__ import annotations

import pytest

from probekit.errors import UnsupportedError
from tests.codegen.machine import Machine


def test_too_much_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probekit.codegen.image.MAX_IMAGE", 2000)
    Machine("fbt::: { trace(arg0); }")
    with pytest.raises(UnsupportedError) as caught:
        Machine("fbt::: { " + "trace(arg0 * 3); " * 200 + "}")
    assert caught.value.feature == "size" and "more than the 2,000" in str(caught.value)
