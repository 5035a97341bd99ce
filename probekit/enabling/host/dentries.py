"""The path of a directory, read from guest memory as :mod:`probekit.codegen.runtime.task_paths` does in the guest."""

from __future__ import annotations

from collections.abc import Callable

from probekit.codegen.runtime.task_paths import DEEPEST, LONGEST_NAME
from probekit.errors import GuestError
from probekit.guest.offsets import PathOffsets

__all__ = ("path_text",)

Place = tuple[int, int]
"""A mount (``struct vfsmount``) and a dentry."""


def path_text(read: Callable[[int, int], bytes], paths: PathOffsets, place: Place, root: Place) -> bytes:
    """The path of ``place`` as it is seen from ``root``. ``read``: bytes at an address.

    Raises :class:`GuestError` where the names have no end, or are longer than a file system lets them be.
    """

    def word(addr: int) -> int:
        return int.from_bytes(read(addr, 8), "little")

    mount, dentry = place
    names: list[bytes] = []
    if not word(dentry + paths.hashed) and word(dentry + paths.parent) != dentry:
        names.append(b" (deleted)")
    for _ in range(DEEPEST):
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
        if size > LONGEST_NAME:
            raise GuestError(f"the name at {dentry:#x} has {size} bytes")
        names.append(b"/" + read(word(dentry + paths.name), size))
        dentry = parent
    else:
        raise GuestError(f"the path that ends at {place[1]:#x} has no beginning")
    return b"".join(reversed(names)) or b"/"
