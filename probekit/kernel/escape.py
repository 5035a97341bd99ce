"""Make text from the guest safe for a terminal.

The guest is untrusted: a name may hold control sequences. Whatever is not printable ASCII becomes a visible escape.
"""

from __future__ import annotations

__all__ = ("escape_unprintable",)


def escape_unprintable(raw: bytes) -> str:
    """Return the text with ``\\xNN`` for every byte that is not printable ASCII: ``b"a\\x1b"`` gives ``a\\x1b``."""
    text = raw.decode("latin-1")
    if text.isascii() and text.isprintable():
        return text
    return "".join(chr(c) if 0x20 <= c < 0x7F else f"\\x{c:02x}" for c in raw)
