"""Tables of text addresses."""

from __future__ import annotations

import struct

from probekit.kernel.text_tables import relative_pairs, relative_sites

from .fakes import BASE


def test_sites_are_relative_to_their_own_entries() -> None:
    data = struct.pack("<iii", -0x100, 5, 6) + struct.pack("<iii", 0x40, 5, 6) + b"\0\0"
    assert relative_sites(data, BASE, 12) == [BASE - 0x100, BASE + 12 + 0x40]
    assert relative_pairs(data, BASE, 12) == [(BASE - 0x100, BASE + 4 + 5), (BASE + 12 + 0x40, BASE + 16 + 5)]
