"""The kernel's build id and release, out of ELF notes and its banner."""

from __future__ import annotations

import struct

from probekit.kernel.metadata import parse_build_id, parse_release


def test_the_build_id_is_found_among_notes_and_the_release_in_the_banner() -> None:
    other = struct.pack("<III", 6, 4, 0x100) + b"Linux\0\0\0" + bytes(4)
    gnu = struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes(range(20))
    assert parse_build_id(other + gnu) == bytes(range(20)).hex()
    for bad in (b"", other, gnu[:-1], b"\xff" * 64, struct.pack("<III", 0, 0, 0) * 200):
        assert parse_build_id(bad) is None
    assert parse_release("Linux version 6.1.0-x (gcc)") == "6.1.0-x" and parse_release("MS-DOS") == ""
