"""Where the kernel describes itself: banner, ELF notes, BTF.

By symbol when there is one; without data symbols (``CONFIG_KALLSYMS_ALL=n``)
by their looks: the banner's text, a GNU build-id note, BTF's header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probekit.errors import SymbolError
from probekit.kernel.base import find_banner
from probekit.kernel.btf import Btf
from probekit.kernel.memory import Image
from probekit.kernel.notes import build_id
from probekit.kernel.symbols import SymbolTable
from probekit.kernel.text import clean_text

__all__ = ("Places", "by_search", "by_symbols", "identity")

_MAX_BTF = 64 << 20
_MAX_NOTES = 4096
_MAX_TRIES = 16
# name size 4, description size 20 (SHA-1), type 3, "GNU"
_NOTE = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"
# magic, version 1, no flags, header of 24 bytes, types at 0
_BTF = b"\x9f\xeb\x01\x00\x18\x00\x00\x00\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True)
class Places:
    """``banner``: address; ``notes`` and ``btf``: (address, size). None: not there."""

    banner: int | None = None
    notes: tuple[int, int] | None = None
    btf: tuple[int, int] | None = None

    def or_else(self, other: Places) -> Places:
        """This, with what is missing taken from ``other``."""
        return Places(
            other.banner if self.banner is None else self.banner,
            other.notes if self.notes is None else self.notes,
            other.btf if self.btf is None else self.btf,
        )


def by_symbols(table: SymbolTable) -> Places:
    """What the symbols say; implausible sizes count as absent."""
    return Places(
        banner=table.addr("linux_banner"),
        notes=_bounded(table.range("__start_notes", "__stop_notes"), _MAX_NOTES, cut=True),
        btf=_bounded(table.range("__start_BTF", "__stop_BTF"), _MAX_BTF, cut=False),
    )


def _bounded(bounds: tuple[int, int] | None, limit: int, *, cut: bool) -> tuple[int, int] | None:
    if bounds is None or bounds[0] == bounds[1]:
        return None
    size = bounds[1] - bounds[0]
    if size > limit and not cut:
        return None
    return bounds[0], min(size, limit)


def by_search(image: Image) -> Places:
    """What a copy of memory shows."""
    banner = find_banner(image)
    note = image.data.find(_NOTE)
    return Places(
        banner=banner[0] if banner else None,
        notes=(image.start + note, 36) if note >= 0 else None,
        btf=_search_btf(image),
    )


def _search_btf(image: Image) -> tuple[int, int] | None:
    at = -1
    for _ in range(_MAX_TRIES):
        at = image.data.find(_BTF, at + 1)
        if at < 0:
            return None
        types, strings_at, strings = (int.from_bytes(image.data[at + o : at + o + 4], "little") for o in (12, 16, 20))
        size = 24 + strings_at + strings
        if types <= strings_at and size <= min(_MAX_BTF, len(image.data) - at):
            try:
                Btf(image.data[at : at + size])
            except SymbolError:
                continue
            return image.start + at, size
    return None


def identity(witnesses: Sequence[tuple[int, bytes]]) -> tuple[str, str | None]:
    """The version banner (escaped; empty if unknown) and the build id, out of the witnesses' bytes."""
    version, number = "", None
    for _, data in witnesses:
        if data.startswith(b"Linux version "):
            version = clean_text(data.split(b"\n", 1)[0])
        elif number is None:
            number = build_id(data)
    return version, number
