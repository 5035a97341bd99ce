"""Guest text made safe for a terminal: what is not printable ASCII is written as an escape."""

from __future__ import annotations

__all__ = ("clean_text",)


def clean_text(raw: bytes) -> str:
    """``b"a\\x1b"`` becomes ``a\\x1b`` spelled out, five characters."""
    text = raw.decode("latin-1")
    if text.isascii() and text.isprintable():
        return text
    return "".join(chr(c) if 0x20 <= c < 0x7F else f"\\x{c:02x}" for c in raw)
