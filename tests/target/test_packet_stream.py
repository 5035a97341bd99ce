"""Whole packets over a byte stream."""

from __future__ import annotations

import pytest
from scripted_stub import Connect

from probekit.errors import ProtocolError


def test_a_packet_without_end_is_bounded(connect: Connect) -> None:
    target, stub = connect(timeout=5)
    stub.faults.answers[b"g"] = b"0" * (3 << 20)
    with pytest.raises(ProtocolError):
        target.regs(1)
