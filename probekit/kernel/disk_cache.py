"""Keep what was read from a kernel on disk, for the next attach.

Files stand in ``$XDG_CACHE_HOME/probekit/symbols`` (``~/.cache/...``), one per
kernel build, named by its build id. Nothing in them depends on KASLR:
addresses are offsets from ``_text``. A file holds *witnesses*, (offset,
bytes) pairs of read-only data such as the ELF notes, the banner and the token
table; a kernel in memory is the one in the file if all of them are where the
file says, which takes one batch of small reads.

Format: magic line; u32 header size; JSON header; columns; CRC-32 of everything
before it. A file that does not fit is ignored and written again: the cache is
never a reason to fail. A file is put in place by renaming, and only its owner can read it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probekit.kernel.btf_sections import BtfIndex
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.memory import KernelMemory
from probekit.resources import cache_dir as user_cache_dir

__all__ = ("CacheEntry", "cache_dir", "find_entry", "store_entry")

_MAGIC = b"probekit kernel cache 2\n"
_MAX_HEADER = 64 << 10
_MAX_FILE = 128 << 20
_MAX_FILES = 16
_NAME = re.compile(r"[0-9a-f]{16,128}\Z")
_PRINTABLE = bytes(range(0x20, 0x7F))


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """What is kept of one kernel build."""

    key: str
    """The build id, or another hexadecimal number that tells this build from every other."""
    witnesses: tuple[tuple[int, bytes], ...]
    """(offset from the base, bytes) of read-only data by which the build is recognized in memory."""
    symbols: RawSymbols = field(repr=False)
    """The kernel's symbols."""
    btf: bytes = field(repr=False)
    """The kernel's types; empty when it has none."""
    btf_index: BtfIndex | None = field(repr=False)
    """The index of ``btf``; None without types."""


def cache_dir() -> Path | None:
    """Return the folder of the cache, which may not exist yet; None if the user has no home."""
    return user_cache_dir("symbols")


def find_entry(memory: KernelMemory, base: int, folder: Path | None = None) -> CacheEntry | None:
    """Return the entry of the kernel at ``base``, or None."""
    folder = folder or cache_dir()
    for path in _files(folder) if folder is not None else ():
        try:
            witnesses = _read_witnesses(path)
            found = memory.read_many([(base + offset, len(data)) for offset, data in witnesses])
            if witnesses and all(a == b for a, (_, b) in zip(found, witnesses, strict=True)):
                return _load(path, base)
        except (OSError, ValueError, KeyError, TypeError):
            # A file that is cut off, damaged or of another version is ignored.
            continue
    return None


def store_entry(entry: CacheEntry, base: int, folder: Path | None = None) -> bool:
    """Write the entry. Returns False when that is not possible; it raises nothing."""
    folder = folder or cache_dir()
    if folder is None or not _NAME.match(entry.key):
        return False
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_pack(entry, base))
            Path(name).replace(folder / f"{entry.key}.kernel")
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        for path in list(_files(folder))[_MAX_FILES:]:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    """Yield the cache files, latest first. Only regular files of our own are trusted."""
    dated = []
    try:
        for path in folder.glob("*.kernel"):
            status = path.lstat()
            if path.is_file() and not path.is_symlink() and status.st_uid == os.getuid():
                dated.append((status.st_mtime_ns, path))
    except OSError:
        return
    yield from (path for _, path in sorted(dated, reverse=True))


def _relative(addrs: Sequence[int], base: int) -> array[int]:
    """Turn addresses into offsets from the base; an absolute (per-CPU) value v becomes -1 - v."""
    return array("q", [addr - base if addr >= base else -1 - addr for addr in addrs])


def _absolute(offsets: Sequence[int], base: int) -> array[int]:
    return array("Q", [base + offset if offset >= 0 else -1 - offset for offset in offsets])


def _pack(entry: CacheEntry, base: int) -> bytes:
    symbols = entry.symbols
    columns = [
        _relative(symbols.addrs, base).tobytes(),
        symbols.types.encode("ascii"),
        "\n".join(symbols.names).encode("ascii"),
        entry.btf,
        entry.btf_index.pack() if entry.btf_index is not None else b"",
    ]
    header = json.dumps(
        {
            "key": entry.key,
            "encoding": symbols.encoding,
            "witnesses": [[offset, data.hex()] for offset, data in entry.witnesses],
            "sizes": [len(column) for column in columns],
        }
    ).encode()
    body = b"".join([_MAGIC, len(header).to_bytes(4, "little"), header, *columns])
    return body + zlib.crc32(body).to_bytes(4, "little")


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the header and where the columns begin. Raises :class:`ValueError` for another file."""
    at = len(_MAGIC) + 4
    size = int.from_bytes(data[at - 4 : at], "little")
    if not data.startswith(_MAGIC) or size > _MAX_HEADER or at + size > len(data):
        raise ValueError("not a cache file of this version")
    header = json.loads(data[at : at + size])
    if not isinstance(header, dict):
        raise TypeError("header")
    return header, at + size


def _witnesses(header: dict[str, Any]) -> tuple[tuple[int, bytes], ...]:
    found = tuple((int(offset), bytes.fromhex(data)) for offset, data in header["witnesses"])
    if any(not 0 <= offset < 1 << 30 for offset, _ in found):
        raise ValueError("witness")
    return found


def _read_witnesses(path: Path) -> tuple[tuple[int, bytes], ...]:
    with path.open("rb") as file:
        return _witnesses(_header(file.read(_MAX_HEADER))[0])


def _load(path: Path, base: int) -> CacheEntry:
    if path.stat().st_size > _MAX_FILE:
        raise ValueError("size")
    data = path.read_bytes()
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("checksum")
    header, at = _header(data)
    columns = []
    for size in header["sizes"]:
        columns.append(data[at : at + int(size)])
        at += int(size)
    offsets, types, names, btf, index = columns
    # The names came from a guest: allow no more than kallsyms.decode() does.
    if at != len(data) - 4 or names.translate(None, _PRINTABLE + b"\n") or types.translate(None, _PRINTABLE):
        raise ValueError("content")
    addrs = _absolute(array("q", offsets), base)
    listed = names.decode("ascii").split("\n")
    if not len(addrs) == len(types) == len(listed):
        raise ValueError("column lengths")
    encoding = header["encoding"]
    symbols = RawSymbols(addrs=addrs, names=listed, types=types.decode("ascii"), encoding=encoding)
    return CacheEntry(
        key=str(header["key"]),
        witnesses=_witnesses(header),
        symbols=symbols,
        btf=btf,
        btf_index=BtfIndex.unpack(index) if index else None,
    )
