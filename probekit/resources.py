"""Finds files that are not Python: those that ship with the product, and its caches.

The folders ``grammar/`` and ``scripts/`` ship with it. In a wheel they stand under ``probekit/_data``; in a
checkout (or an editable install) beside the package.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ("cache_dir", "data_dir")


def data_dir(name: str) -> Path:
    """Return the folder ``grammar`` or ``scripts``, wherever this install keeps it."""
    here = Path(__file__).resolve().parent
    packaged = here / "_data" / name
    return packaged if packaged.is_dir() else here.parent / name


def cache_dir(name: str) -> Path | None:
    """Return the folder of one of the user's caches: ``$XDG_CACHE_HOME/probekit/<name>`` (``~/.cache/...``).

    It may not exist yet. None if the user has no home.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The XDG specification: a relative path is ignored.
        return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "probekit" / name
    except RuntimeError:
        return None
