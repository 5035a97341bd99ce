"""Functions of ours that the guest calls by itself: at its tracepoints and its markers.

    f3 0f 1e fa    endbr64        a kernel with IBT calls nothing else through a pointer
    body
    c3             ret

The body is what it is in a detour: it balances the stack and keeps every
register that it changes. On its entry the stack is that of a called function,
and flags are dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from probekit.isa.decode import ENDBR64
from probekit.patch.edits import Edit

__all__ = ("HOOK_PREFIX_SIZE", "HOOK_SUFFIX_SIZE", "Called", "Hook", "MarkerHook", "hook_stub", "marker_edits")

_RET = b"\xc3"  # ret
HOOK_PREFIX_SIZE = len(ENDBR64)
HOOK_SUFFIX_SIZE = len(_RET)


class Hook(NamedTuple):
    """Where the kernel is told of our function. ``addr``: of the ``struct tracepoint``.

    ``owner``: the ``struct module`` that has it, which must not go meanwhile; 0 for the kernel's own.
    """

    addr: int
    owner: int


class MarkerHook(NamedTuple):
    """A static marker. ``addr``: of its descriptor; ``owner``: as of :class:`Hook`.

    ``call``: (address, value) of its function pointer; ``state``: address of the switch of the generic form, or 0;
    ``loads``: (address, bytes) of the loads of the optimized form, off.
    """

    addr: int
    owner: int
    call: tuple[int, int]
    state: int
    loads: tuple[tuple[int, bytes], ...]


Called = Hook | MarkerHook
"""A place that calls a function of ours."""


class MarkerEdits(NamedTuple):
    """``pointers``, then ``switches`` are data. ``loads`` are instructions: see :mod:`probekit.patch.crossmodify`."""

    pointers: tuple[Edit, ...]
    switches: tuple[Edit, ...]
    loads: tuple[Edit, ...]


def marker_edits(hooks: Sequence[tuple[MarkerHook, int]]) -> MarkerEdits:
    """What connects each marker to the function of ours at the address beside it, and switches it on."""
    pointers = [Edit(h.call[0], h.call[1].to_bytes(8, "little"), stub.to_bytes(8, "little")) for h, stub in hooks]
    switches = [Edit(h.state, bytes(4), (1).to_bytes(4, "little")) for h, _ in hooks if h.state]
    # b0+r 00  ->  b0+r 01      mov r8, 0  ->  mov r8, 1
    loads = [Edit(addr, old, old[:1] + b"\x01") for h, _ in hooks for addr, old in h.loads]
    return MarkerEdits(tuple(pointers), tuple(switches), tuple(loads))


def hook_stub(body: bytes) -> bytes:
    """The whole function around ``body``; what is called at tracepoints and markers has no result."""
    return ENDBR64 + body + _RET
