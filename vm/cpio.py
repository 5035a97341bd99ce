"""Write "newc" cpio archives, which the kernel unpacks into its root file system.

Each entry is a 110-byte ASCII header (magic ``070701`` and 13 fields of eight
hex digits), the name with its NUL, and the data, both padded to four bytes.
Archives may follow each other in one file. The owner is always root and the
times are zero, so equal contents make equal bytes (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

__all__ = ("Entry", "archive", "char_device", "directory", "regular", "symlink")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive."""

    name: str
    mode: int
    """The permissions, with the bits of the file type."""
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    """(major, minor) of a device node."""


def regular(name: str, data: bytes, *, mode: int = 0o644) -> Entry:
    """Make a plain file."""
    return Entry(name, stat.S_IFREG | mode, data)


def directory(name: str) -> Entry:
    """Make a directory."""
    return Entry(name, stat.S_IFDIR | 0o755)


def symlink(name: str, target: str) -> Entry:
    """Make a symbolic link; its target is its data."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def char_device(name: str, major: int, minor: int) -> Entry:
    """Make a character device."""
    return Entry(name, stat.S_IFCHR | 0o600, b"", (major, minor))


def _pad(length: int) -> bytes:
    return bytes(-length % 4)


def _encode(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return head + _pad(len(head)) + entry.data + _pad(len(entry.data))


def archive(entries: tuple[Entry, ...]) -> bytes:
    """Return the archive of all entries. The directories of a file must come before it."""
    trailer = Entry("TRAILER!!!", 0)
    body = b"".join(_encode(number, entry) for number, entry in enumerate((*entries, trailer), 1))
    # The kernel wants the next archive of the same image at a multiple of four; cpio itself pads to 512.
    return body + bytes(-len(body) % 512)
