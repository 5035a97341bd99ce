"""Where the files that ship with the product are: ``grammar/`` and ``scripts/``.

In a wheel they stand under ``probekit/_data``; in a checkout (or an editable
install) beside the package.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ("data_dir",)


def data_dir(name: str) -> Path:
    """The folder ``grammar`` or ``scripts``, wherever this install keeps it."""
    here = Path(__file__).resolve().parent
    packaged = here / "_data" / name
    return packaged if packaged.is_dir() else here.parent / name
