"""Debian's bpftrace with every library it needs, as a second cpio archive."""

from __future__ import annotations

from pathlib import Path

from vm.errors import VmError

__all__ = ("archive",)


def archive() -> Path:
    """The archive, built if it is not in the cache."""
    raise VmError("not yet")
