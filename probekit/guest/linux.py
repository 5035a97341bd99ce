"""Allocate guest memory of each kind and wait for readers, by functions of the guest's kernel.

The functions are found by name, newest first, and never by the kernel's version:

    executable  execmem_alloc (kernel commit 12af2b83d0b1, v6.10), module_alloc before; then set_memory_rox
                (60463628c9e0, v6.2), set_memory_ro and set_memory_x before
    data        vzalloc_noprof (2c321f3f70bc, v6.10), vzalloc before
    per-CPU     pcpu_alloc_noprof (24e44cc22aa3, v6.10), __alloc_percpu before
    grace       as data; for structures that the kernel writes to (:mod:`probekit.guest.grace_period`)
    readers     synchronize_rcu_tasks where the kernel has it (preemptible kernels), synchronize_rcu

All memory but per-CPU memory ends with a *stamp*: bytes that only the journal of its enabling has. A recovery frees
nothing whose stamp is not there. After a snapshot was loaded, or another recovery freed the memory, somebody else may
have memory at the same address.
"""

from __future__ import annotations

from collections.abc import Callable

from probekit.errors import GuestError, UnsupportedError
from probekit.guest.calls import Allocate, Free, MemoryKind
from probekit.guest.safepoint import SafePoint
from probekit.guest.trap_registration import TrapServices, find_trap_services
from probekit.records import record

__all__ = ("STAMP_SIZE", "Allocation", "LinuxServices", "find_services", "stamp_of")

_PAGE = 4096
_KERNEL = 1 << 63
_GFP_KERNEL = 0xCC0  # the same bits on every kernel that has the symbols below
_EXECMEM_DEFAULT = 0

STAMP_SIZE = 16
"""Bytes of the stamp at the end of an allocation."""
_STAMP_MAGIC = bytes.fromhex("b7 70 72 6f 62 65 6b 9e")


def stamp_of(token: bytes) -> bytes:
    """Return the stamp of memory whose journal has this token of 8 bytes."""
    return _STAMP_MAGIC + token


@record
class Allocation:
    """Guest memory of ours."""

    kind: MemoryKind
    """What it is for."""
    addr: int
    """A kernel virtual address, or for ``percpu`` the kernel's per-CPU pointer."""
    size: int
    """Bytes, with the stamp."""

    @property
    def stamp(self) -> int | None:
        """Address of the stamp; None for per-CPU memory, which has none."""
        return None if self.kind == "percpu" else self.addr + self.size - STAMP_SIZE

    @property
    def room(self) -> int:
        """Bytes before the stamp."""
        return self.size if self.kind == "percpu" else self.size - STAMP_SIZE


@record
class _Maker:
    """One pair of kernel functions that allocate and free memory."""

    alloc: str
    """Name of the function that allocates."""
    before: tuple[int, ...]
    """Its arguments before the size."""
    after: tuple[int, ...]
    """Its arguments after the size."""
    free: str
    """Name of the function that frees."""


_DATA = (_Maker("vzalloc_noprof", (), (), "vfree"), _Maker("vzalloc", (), (), "vfree"))
_MAKERS: dict[MemoryKind, tuple[_Maker, ...]] = {
    "exec": (
        _Maker("execmem_alloc", (_EXECMEM_DEFAULT,), (), "execmem_free"),
        _Maker("module_alloc", (), (), "module_memfree"),
        _Maker("module_alloc", (), (), "vfree"),
    ),
    "data": _DATA,
    "grace": _DATA,
    "percpu": (
        _Maker("pcpu_alloc_noprof", (), (64, 0, _GFP_KERNEL), "free_percpu"),
        _Maker("__alloc_percpu", (), (64,), "free_percpu"),
    ),
}
_PROTECT = ("set_memory_ro", "set_memory_x")
_READERS = ("synchronize_rcu_tasks", "synchronize_rcu")


@record
class LinuxServices:
    """Calls the kernel's functions that manage memory. Every call needs a :class:`SafePoint`."""

    makers: dict[MemoryKind, tuple[_Maker, int, int]]
    """The functions for each kind of memory, with their addresses: ``(names, allocate, free)``."""
    protect: tuple[int, ...]
    """Addresses of the functions that make memory read-only and executable."""
    readers: tuple[int, ...]
    """Addresses of the functions that wait for readers."""
    traps: TrapServices
    """The functions that register our trap handler and exception table."""

    def allocate(self, point: SafePoint, kind: MemoryKind, size: int) -> Allocation:
        """Allocate ``size`` bytes, and write the stamp of the point's log after them.

        The whole is rounded up to pages except for ``percpu``, which has no stamp. The guest zeroes all but ``exec``.

        Raises :class:`probekit.errors.GuestError` when the guest has no such memory left, or returns no such address.
        """
        maker, alloc, _ = self.makers[kind]
        if kind != "percpu":
            size = -(-(size + STAMP_SIZE) // _PAGE) * _PAGE
        what = f"{size} bytes of {kind} memory"
        addr = point.call_pointer(alloc, *maker.before, size, *maker.after, what=what, purpose=Allocate(kind, size))
        if kind != "percpu" and addr < _KERNEL:
            raise GuestError(f"the guest kernel returned {addr:#x} for {what}, which is no kernel address")
        memory = Allocation(kind=kind, addr=addr, size=size)
        if memory.stamp is not None and point.token:
            point.write(memory.stamp, stamp_of(point.token))
        return memory

    def make_executable(self, point: SafePoint, memory: Allocation) -> None:
        """Make ``exec`` memory read-only and executable, as kernels require. The stub can still write it."""
        for function in self.protect:
            point.call(function, memory.addr, memory.size // _PAGE)

    def free(self, point: SafePoint, memory: Allocation) -> None:
        """Give memory back to the guest kernel."""
        point.call(self.makers[memory.kind][2], memory.addr, purpose=Free(memory.addr))

    def synchronize(self, point: SafePoint, *, timeout: float = 60.0) -> None:
        """Wait until no task can still be inside code that was reachable before this call.

        ``timeout``: seconds for each of the guest's functions. Raises :class:`probekit.errors.GuestError` after that.
        """
        for function in self.readers:
            point.call(function, timeout=timeout)


def find_services(find: Callable[[str], int | None]) -> LinuxServices:
    """Look up every service by name. Raises :class:`UnsupportedError` naming what the kernel lacks."""
    makers: dict[MemoryKind, tuple[_Maker, int, int]] = {}
    for kind, choices in _MAKERS.items():
        for maker in choices:
            alloc, free = find(maker.alloc), find(maker.free)
            if alloc is not None and free is not None:
                makers[kind] = (maker, alloc, free)
                break
        else:
            names = ", ".join(m.alloc for m in choices)
            raise UnsupportedError(
                f"this kernel has no known way to allocate {kind} memory (looked for {names})",
                feature=f"{kind} memory",
                hint="--engine stop works without it for function entries",
            )
    readers = tuple(addr for name in _READERS if (addr := find(name)) is not None)
    both = find("set_memory_rox")
    # Both kinds of executable memory get their old permissions back when they are freed (VM_FLUSH_RESET_PERMS).
    protect = (both,) if both is not None else tuple(a for name in _PROTECT if (a := find(name)) is not None)
    return LinuxServices(makers=makers, protect=protect, readers=readers, traps=find_trap_services(find))
