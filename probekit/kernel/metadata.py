"""Find what the kernel says about itself: version banner, build id (ELF notes) and types (BTF).

They are found by symbol where there is one. Without data symbols (``CONFIG_KALLSYMS_ALL=n``) they are searched for
by their form: the banner's text, a GNU build-id note, BTF's header.

A note is name size, description size and type, then name and description, both padded to 4 bytes. The
build id is the note of type 3 (``NT_GNU_BUILD_ID``) of the owner ``GNU``. It is taken
from the kernel's notes between ``__start_notes`` and ``__stop_notes``, never
from VMCOREINFO, whose BUILD-ID was garbage in several stable releases
(5.15.168+, 6.1.113 to 118, 6.6.55 to 62).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.escape import escape_unprintable
from probekit.kernel.image_base import find_banner
from probekit.kernel.memory import MemoryCopy
from probekit.kernel.symbols import SymbolTable

__all__ = (
    "MetadataLocations",
    "locate_by_search",
    "locate_by_symbols",
    "parse_build_id",
    "parse_release",
    "parse_witnesses",
)

_MAX_BTF = 64 << 20
_MAX_NOTES_SIZE = 4096
_MAX_NOTES = 64
_MAX_TRIES = 16
_NOTE_HEADER = struct.Struct("<III")
_NT_GNU_BUILD_ID = 3
# name size 4, description size 20 (SHA-1), type 3, "GNU"
_BUILD_ID_NOTE = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"
_BUILD_ID_NOTE_SIZE = 36
# magic, version 1, no flags, header of 24 bytes, types at 0
_BTF_HEADER = b"\x9f\xeb\x01\x00\x18\x00\x00\x00\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True)
class MetadataLocations:
    """Where the kernel's descriptions of itself are; None for one that was not found."""

    banner: int | None = None
    """The address of ``linux_banner``."""
    notes: tuple[int, int] | None = None
    """Address and size in bytes of the ELF notes."""
    btf: tuple[int, int] | None = None
    """Address and size in bytes of the types."""

    def or_else(self, other: MetadataLocations) -> MetadataLocations:
        """Return these, with what is missing taken from ``other``."""
        return MetadataLocations(
            other.banner if self.banner is None else self.banner,
            other.notes if self.notes is None else self.notes,
            other.btf if self.btf is None else self.btf,
        )


def locate_by_symbols(table: SymbolTable) -> MetadataLocations:
    """Return what the symbols say. An implausible size counts as absent."""
    return MetadataLocations(
        banner=table.addr("linux_banner"),
        notes=_bounded(table.range("__start_notes", "__stop_notes"), _MAX_NOTES_SIZE, cut=True),
        btf=_bounded(table.range("__start_BTF", "__stop_BTF"), _MAX_BTF, cut=False),
    )


def _bounded(bounds: tuple[int, int] | None, limit: int, *, cut: bool) -> tuple[int, int] | None:
    if bounds is None or bounds[0] == bounds[1]:
        return None
    size = bounds[1] - bounds[0]
    if size > limit and not cut:
        return None
    return bounds[0], min(size, limit)


def locate_by_search(copy: MemoryCopy) -> MetadataLocations:
    """Return what a copy of memory shows by its form."""
    banner = find_banner(copy)
    note = copy.data.find(_BUILD_ID_NOTE)
    return MetadataLocations(
        banner=banner[0] if banner else None,
        notes=(copy.start + note, _BUILD_ID_NOTE_SIZE) if note >= 0 else None,
        btf=_search_btf(copy),
    )


def _search_btf(copy: MemoryCopy) -> tuple[int, int] | None:
    at = -1
    for _ in range(_MAX_TRIES):
        at = copy.data.find(_BTF_HEADER, at + 1)
        if at < 0:
            return None
        types, strings_at, strings = (int.from_bytes(copy.data[at + o : at + o + 4], "little") for o in (12, 16, 20))
        size = 24 + strings_at + strings
        if types <= strings_at and size <= min(_MAX_BTF, len(copy.data) - at):
            try:
                Btf(copy.data[at : at + size])
            except SymbolError:
                continue
            return copy.start + at, size
    return None


def parse_witnesses(witnesses: Sequence[tuple[int, bytes]]) -> tuple[str, str | None]:
    """Return the version banner (escaped; empty if unknown) and the build id that the witnesses' bytes hold.

    ``witnesses``: (offset, bytes) of read-only data, see :mod:`probekit.kernel.disk_cache`.
    """
    version, number = "", None
    for _, data in witnesses:
        if data.startswith(b"Linux version "):
            version = escape_unprintable(data.split(b"\n", 1)[0])
        elif number is None:
            number = parse_build_id(data)
    return version, number


def parse_build_id(notes: bytes) -> str | None:
    """Return the build id in hexadecimal, or None when these ELF notes have none."""
    at = 0
    for _ in range(_MAX_NOTES):
        if at + _NOTE_HEADER.size > len(notes):
            return None
        name_size, size, kind = _NOTE_HEADER.unpack_from(notes, at)
        name_at = at + _NOTE_HEADER.size
        data_at = name_at + (name_size + 3 & -4)
        if data_at + size > len(notes):
            return None
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0" and 8 <= size <= 64:
            return notes[data_at : data_at + size].hex()
        at = data_at + (size + 3 & -4)
    return None


def parse_release(banner: str) -> str:
    """Return ``6.1.0-56-cloud-amd64`` for ``Linux version 6.1.0-56-cloud-amd64 (...)``; empty for another text."""
    match = re.match(r"Linux version (\S{1,64})", banner)
    return match.group(1) if match else ""
