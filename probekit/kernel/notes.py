"""What the kernel says about itself: build id (ELF notes) and version banner.

A note is name size, description size, type, then both padded to 4 bytes. The
build id is the note of type 3 (``NT_GNU_BUILD_ID``) by ``GNU``. It is taken
from the kernel's notes between ``__start_notes`` and ``__stop_notes``, never
from VMCOREINFO, whose BUILD-ID was garbage in several stable releases
(5.15.168+, 6.1.113 to 118, 6.6.55 to 62).
"""

from __future__ import annotations

import re
import struct

__all__ = ("build_id", "release_of")

_NOTE = struct.Struct("<III")
_BUILD_ID = 3
_MAX_NOTES = 64


def build_id(notes: bytes) -> str | None:
    """The build id in hexadecimal, or None."""
    at = 0
    for _ in range(_MAX_NOTES):
        if at + _NOTE.size > len(notes):
            return None
        name_size, size, kind = _NOTE.unpack_from(notes, at)
        name_at = at + _NOTE.size
        data_at = name_at + (name_size + 3 & -4)
        if data_at + size > len(notes):
            return None
        if kind == _BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0" and 8 <= size <= 64:
            return notes[data_at : data_at + size].hex()
        at = data_at + (size + 3 & -4)
    return None


def release_of(banner: str) -> str:
    """``6.1.0-56-cloud-amd64`` out of ``Linux version 6.1.0-56-cloud-amd64 (...) ...``; empty when it is not one."""
    match = re.match(r"Linux version (\S{1,64})", banner)
    return match.group(1) if match else ""
