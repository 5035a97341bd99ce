"""Build the functions of ours that tracepoints and markers call, and the edits that switch markers on.

A *hook* is a place where the kernel itself calls a function through a pointer: a tracepoint or a marker
(vm/include/probekit/marker.h). Our function, the hook's stub, is::

    f3 0f 1e fa    endbr64        a kernel with IBT only calls what begins with it
    body
    c3             ret

As in a detour the body balances the stack and preserves every register, but not the flags. At its entry the return
address is on top of the stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from probekit.isa.decode import ENDBR64
from probekit.patch.edits import Edit

__all__ = (
    "HOOK_PREFIX_SIZE",
    "HOOK_SUFFIX_SIZE",
    "Hook",
    "MarkerEdits",
    "MarkerHook",
    "TracepointHook",
    "hook_stub",
    "marker_edits",
)

_RET = b"\xc3"  # ret
HOOK_PREFIX_SIZE = len(ENDBR64)
"""Bytes of a hook's stub before the body."""
HOOK_SUFFIX_SIZE = len(_RET)
"""Bytes of a hook's stub after the body."""


class TracepointHook(NamedTuple):
    """A tracepoint with which our function is registered."""

    addr: int
    """Address of its ``struct tracepoint``."""
    owner: int
    """Address of the ``struct module`` that defines it, which must stay loaded meanwhile; 0 for the kernel's own."""


class MarkerHook(NamedTuple):
    """A static marker that calls our function."""

    addr: int
    """Address of its ``struct pk_marker``."""
    owner: int
    """Address of the ``struct module`` that defines it, which must stay loaded meanwhile; 0 for the kernel's own."""
    call: tuple[int, int]
    """(address, value) of its function pointer before ours."""
    state: int
    """Address of the switch of the generic form; 0 for the optimized form."""
    loads: tuple[tuple[int, bytes], ...]
    """(address, bytes) of the loads of the optimized form while it is off; none for the generic form."""


Hook = TracepointHook | MarkerHook
"""A place where the kernel calls a function of ours."""


class MarkerEdits(NamedTuple):
    """Lists the edits that switch markers on, in the order in which they must be made."""

    pointers: tuple[Edit, ...]
    """Edits of the function pointers, which are data."""
    switches: tuple[Edit, ...]
    """Edits of the generic form's switches, which are data."""
    loads: tuple[Edit, ...]
    """Edits of the optimized form's loads, which are instructions (see :mod:`probekit.patch.crossmodify`)."""


def marker_edits(hooks: Sequence[tuple[MarkerHook, int]]) -> MarkerEdits:
    """Return the edits that switch markers on. ``hooks``: each marker, with the address of our function for it."""
    pointers = [Edit(h.call[0], h.call[1].to_bytes(8, "little"), stub.to_bytes(8, "little")) for h, stub in hooks]
    switches = [Edit(h.state, bytes(4), (1).to_bytes(4, "little")) for h, _ in hooks if h.state]
    # b0+r 00  ->  b0+r 01      mov r8, 0  ->  mov r8, 1
    loads = [Edit(addr, old, old[:1] + b"\x01") for h, _ in hooks for addr, old in h.loads]
    return MarkerEdits(tuple(pointers), tuple(switches), tuple(loads))


def hook_stub(body: bytes) -> bytes:
    """Return the stub of a hook with ``body``. Tracepoints and markers expect no return value."""
    return ENDBR64 + body + _RET
