"""Paths of directories in guest memory: across mounts, up to the root, and no further than a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.enabling.host.dentries import MountedDentry, path_text
from probekit.errors import GuestError
from probekit.guest.offsets import PathOffsets
from tests.codegen.emulated_kernel import PATHS


class Disk:
    """Dentries and mounts in memory that holds zeros elsewhere."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self.names: dict[int, bytes] = {}
        self._next = 0x10000

    def read(self, addr: int, size: int) -> bytes:
        if addr in self.names:
            return self.names[addr][:size]
        return self.words.get(addr, 0).to_bytes(8, "little")[:size]

    def _take(self) -> int:
        self._next += 0x1000
        return self._next

    def dentry(self, name: bytes, parent: int | None = None) -> int:
        at = self._take()
        self.words |= {at + PATHS.parent: at if parent is None else parent, at + PATHS.hashed: 1}
        self.words |= {at + PATHS.name: at + 0x800, at + PATHS.name_size: len(name)}
        self.names[at + 0x800] = name
        return at

    def mount(self, root: int, on: MountedDentry | None = None) -> int:
        """Return the ``vfsmount`` of a mount; ``on``: the mount around it and where it is mounted."""
        at = self._take()
        above, point = (at, 0) if on is None else on
        self.words |= {at + PATHS.mount_root: root, at + PATHS.mountpoint: point}
        self.words[at + PATHS.mount_parent] = above - PATHS.mount
        return at


def _path(disk: Disk, path: MountedDentry, root: MountedDentry, paths: PathOffsets = PATHS) -> bytes:
    return path_text(disk.read, paths, path, root)


_names = st.lists(st.text("abc.", min_size=1, max_size=5).map(str.encode), max_size=6)


@given(_names, _names)
def test_a_path_crosses_a_mount(above: list[bytes], below: list[bytes]) -> None:
    disk = Disk()
    outer_root = at = disk.dentry(b"/")
    for name in above:
        at = disk.dentry(name, at)
    outer = disk.mount(outer_root)
    inner_root = here = disk.dentry(b"/")
    inner = disk.mount(inner_root, (outer, at))
    for name in below:
        here = disk.dentry(name, here)
    expected = b"".join(b"/" + name for name in [*above, *below]) or b"/"
    assert _path(disk, (inner, here), (outer, outer_root)) == expected
    inside = b"".join(b"/" + name for name in below) or b"/"
    assert _path(disk, (inner, here), (inner, inner_root)) == inside, "as it is seen from another root"


def test_a_removed_directory_says_so() -> None:
    disk = Disk()
    root = disk.dentry(b"/")
    mount, gone = disk.mount(root), disk.dentry(b"gone", root)
    disk.words[gone + PATHS.hashed] = 0
    assert _path(disk, (mount, gone), (mount, root)) == b"/gone (deleted)"


def test_a_ring_of_directories_is_refused() -> None:
    disk = Disk()
    root, first = disk.dentry(b"/"), disk.dentry(b"a")
    second = disk.dentry(b"b", first)
    disk.words[first + PATHS.parent] = second
    with pytest.raises(GuestError, match="no beginning"):
        _path(disk, (disk.mount(root), second), (0, 0))


def test_a_name_longer_than_file_systems_allow_is_refused() -> None:
    disk = Disk()
    root = disk.dentry(b"/")
    long = disk.dentry(b"x", root)
    disk.words[long + PATHS.name_size] = 1 << 20
    with pytest.raises(GuestError, match="1048576 bytes"):
        _path(disk, (disk.mount(root), long), (0, 0))
