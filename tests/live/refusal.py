"""What every refusal looks like."""

from __future__ import annotations

from tests.live.tool import Result

__all__ = ("PROBE", "refused")

PROBE = ("-n", "fbt::sys_getppid:entry { @ = count(); }", "-n", "tick-2s { exit(0); }")


def refused(done: Result, *words: str) -> None:
    """One paragraph that has these words, status 1, no traceback."""
    said = done.paragraph()
    assert done.status == 1, said
    for word in words:
        assert word in said, said
