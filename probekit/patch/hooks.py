"""Build functions of ours that the guest itself calls, at its tracepoints and its markers.

    f3 0f 1e fa    endbr64        needed for a call through a pointer by a kernel with IBT
    body
    c3             ret

As in a detour the body balances the stack and preserves every
register. At its entry the stack is that of a called function,
and flags are dead.
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
HOOK_SUFFIX_SIZE = len(_RET)


class TracepointHook(NamedTuple):
    """A tracepoint with which our function is registered."""

    addr: int
    """Address of its ``struct tracepoint``."""
    owner: int
    """Address of the ``struct module`` that has it, which must stay loaded meanwhile; 0 for the kernel's own."""


class MarkerHook(NamedTuple):
    """A static marker that calls our function."""

    addr: int
    """Address of its ``struct pk_marker``."""
    owner: int
    """As in :class:`TracepointHook`."""
    call: tuple[int, int]
    """(address, value) of its function pointer."""
    state: int
    """Address of the switch of the generic form; 0 for the optimized form."""
    loads: tuple[tuple[int, bytes], ...]
    """(address, bytes) of the loads of the optimized form while it is off."""


Hook = TracepointHook | MarkerHook
"""A place that calls a function of ours."""


class MarkerEdits(NamedTuple):
    """The edits that switch markers on, in the order in which they must be made."""

    pointers: tuple[Edit, ...]
    """Of function pointers: data."""
    switches: tuple[Edit, ...]
    """Of the generic form's switches: data."""
    loads: tuple[Edit, ...]
    """Of the optimized form's loads: instructions, see :mod:`probekit.patch.crossmodify`."""


def marker_edits(hooks: Sequence[tuple[MarkerHook, int]]) -> MarkerEdits:
    """Return the edits that connect each marker to the function at the address beside it, and switch it on."""
    pointers = [Edit(h.call[0], h.call[1].to_bytes(8, "little"), stub.to_bytes(8, "little")) for h, stub in hooks]
    switches = [Edit(h.state, bytes(4), (1).to_bytes(4, "little")) for h, _ in hooks if h.state]
    # b0+r 00  ->  b0+r 01      mov r8, 0  ->  mov r8, 1
    loads = [Edit(addr, old, old[:1] + b"\x01") for h, _ in hooks for addr, old in h.loads]
    return MarkerEdits(tuple(pointers), tuple(switches), tuple(loads))


def hook_stub(body: bytes) -> bytes:
    """Return the whole function with ``body``. A function that tracepoints and markers call has no result."""
    return ENDBR64 + body + _RET
