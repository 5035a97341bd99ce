"""Read the path of a directory from guest memory, as :mod:`probekit.codegen.runtime.task_paths` does in the guest."""

from __future__ import annotations

from collections.abc import Callable

from probekit.codegen.runtime.task_paths import MAX_NAME, MAX_NAMES
from probekit.errors import GuestError
from probekit.guest.offsets import PathOffsets

__all__ = ("MountedDentry", "path_text")

MountedDentry = tuple[int, int]
"""Addresses of a mount (``struct vfsmount``) and of a dentry in it, as ``struct path`` has them."""


def path_text(read: Callable[[int, int], bytes], paths: PathOffsets, path: MountedDentry, root: MountedDentry) -> bytes:
    """Return the path of a dentry as it is seen from ``root``, with " (deleted)" after one that was removed.

    ``read``: ``(addr, size)`` to bytes of guest memory. Raises :class:`GuestError` when the names have no end, or one
    is longer than file systems allow.
    """

    def word(addr: int) -> int:
        return int.from_bytes(read(addr, 8), "little")

    mount, dentry = path
    names: list[bytes] = []
    if not word(dentry + paths.hashed) and word(dentry + paths.parent) != dentry:
        names.append(b" (deleted)")
    for _ in range(MAX_NAMES):
        if (mount, dentry) == root:
            break
        if word(mount + paths.mount_root) == dentry:
            above = word(mount + paths.mount_parent) + paths.mount
            if above == mount:
                break
            mount, dentry = above, word(mount + paths.mountpoint)
            continue
        parent = word(dentry + paths.parent)
        if parent == dentry:
            break
        size = int.from_bytes(read(dentry + paths.name_size, 4), "little")
        if size > MAX_NAME:
            raise GuestError(f"the name at {dentry:#x} has {size} bytes")
        names.append(b"/" + read(word(dentry + paths.name), size))
        dentry = parent
    else:
        raise GuestError(f"the path that ends at {path[1]:#x} has no beginning")
    return b"".join(reversed(names)) or b"/"
