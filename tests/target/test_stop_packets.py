"""Which access a watchpoint's stop packet tells of."""

from __future__ import annotations

import pytest

from probekit.target.stop_packets import parse_stop


@pytest.mark.parametrize(
    ("word", "kind"), [("watch", "watch_write"), ("rwatch", "watch_read"), ("awatch", "watch_access")]
)
def test_watchpoints(word: str, kind: str) -> None:
    reason, thread = parse_stop(f"T05thread:p01.02;{word}:ffffffff81000008;".encode())
    assert (reason.kind, reason.vcpu, thread) == ("watch", 2, b"p01.02")
    assert (reason.watch_addr, reason.watch_kind) == (0xFFFFFFFF81000008, kind)


def test_any_other_stop_has_no_kind() -> None:
    reason, _ = parse_stop(b"T05thread:p01.01;")
    assert (reason.kind, reason.watch_addr, reason.watch_kind) == ("breakpoint", None, None)
