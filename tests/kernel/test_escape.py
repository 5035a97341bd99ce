"""Text from the guest that is safe to print."""

from __future__ import annotations

from probekit.kernel.escape import escape_unprintable


def test_what_is_not_printable_ascii_becomes_visible() -> None:
    assert escape_unprintable(b"vfs_read") == "vfs_read"
    assert escape_unprintable(b"a\x1b\xff") == "a\\x1b\\xff"
    assert escape_unprintable(b"\r\n\x7f") == "\\x0d\\x0a\\x7f"
    assert escape_unprintable(b"") == ""
