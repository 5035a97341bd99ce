"""One guest has one name, however the user spelled it."""

from __future__ import annotations

import pytest

from probekit.session.identity import target_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("localhost:1234", "tcp:127.0.0.1:1234"),
        ("unix:/tmp/./a/../s", "unix:/tmp/s"),
        ("gdb:localhost:1234", "localhost:1234"),
        ("gdb:/tmp/s", "unix:/tmp/s"),
    ],
)
def test_one_guest_has_one_name(one: str, other: str) -> None:
    assert target_key(one) == target_key(other)
