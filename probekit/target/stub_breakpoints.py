"""Set breakpoints and watchpoints in a stub, and keep account of them.

``Z`` packets are used where the stub knows them. Where it does not (gdbsx),
a software breakpoint is INT3 (``cc``) written over the first byte. Such a
stop reports the address after it, and the vCPU is put back to the address itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Protocol

from probekit.errors import TargetError, UnsupportedError
from probekit.target.api import BreakKind, Regs, StopReason, Vcpu
from probekit.target.stop_packets import SIGNAL_TRAP

__all__ = ("BreakpointTable", "StubAccess")

_TYPES: Final[dict[BreakKind, int]] = {
    "software": 0,
    "hardware": 1,
    "watch_write": 2,
    "watch_read": 3,
    "watch_access": 4,
}
_INT3: Final = b"\xcc"  # int3

_Key = tuple[int, int, int]


class StubAccess(Protocol):
    """The calls that the table makes to the target."""

    def request(self, payload: bytes) -> bytes: ...

    def read(self, addr: int, size: int) -> bytes: ...

    def write(self, addr: int, data: bytes) -> None: ...

    def regs(self, vcpu: Vcpu) -> Regs: ...

    def set_regs(self, vcpu: Vcpu, regs: Regs) -> None: ...


class BreakpointTable:
    """The breakpoints that are set, and the byte under each INT3 that we wrote."""

    def __init__(self) -> None:
        # By (packet type, address, size): the byte that an INT3 of ours replaced, None where the stub does it.
        self._set: dict[_Key, bytes | None] = {}

    def code_addresses(self) -> frozenset[int]:
        """Return the addresses of execution breakpoints."""
        return frozenset(addr for kind, addr, _ in self._set if kind <= 1)

    def set(self, stub: StubAccess, addr: int, kind: BreakKind, size: int) -> None:
        """Set one; nothing happens when it is set. Raises :class:`UnsupportedError`, :class:`TargetError`."""
        key = (_TYPES[kind], addr, size)
        if key not in self._set:
            self._set[key] = self._insert(stub, key)

    def clear(self, stub: StubAccess, addr: int, kind: BreakKind, size: int) -> None:
        """Clear one; nothing happens when it is not set. Raises :class:`TargetError` (it then stays listed)."""
        key = (_TYPES[kind], addr, size)
        if key in self._set:
            self._remove(stub, key)
            del self._set[key]

    def clear_all(self, stub: StubAccess) -> None:
        """Clear every one. Raises the first :class:`TargetError`, after all were tried."""
        problem: TargetError | None = None
        for key in list(self._set):
            try:
                self._remove(stub, key)
                del self._set[key]
            except TargetError as error:
                problem = problem or error
        if problem is not None:
            raise problem

    @contextlib.contextmanager
    def lifted(self, stub: StubAccess, addr: int) -> Iterator[None]:
        """Take the execution breakpoints at ``addr`` away within the context."""
        keys = [key for key in self._set if key[0] <= 1 and key[1] == addr]
        for key in keys:
            self._remove(stub, key)
        try:
            yield
        finally:
            for key in keys:
                self._set[key] = self._insert(stub, key)

    def explain(self, stub: StubAccess, reason: StopReason) -> StopReason:
        """Return ``reason`` as the contract has it, and put a vCPU that stopped after an INT3 of ours back onto it."""
        if reason.kind != "breakpoint" or not any(byte is not None for byte in self._set.values()):
            return reason
        regs = stub.regs(reason.vcpu)
        if self._set.get((0, regs["rip"] - 1, 1)) is not None:
            stub.set_regs(reason.vcpu, regs.replace(rip=regs["rip"] - 1))
        return replace(reason, signal=SIGNAL_TRAP)

    def _insert(self, stub: StubAccess, key: _Key) -> bytes | None:
        kind, addr, size = key
        reply = stub.request(b"Z%x,%x,%x" % key)
        if reply == b"OK":
            return None
        if reply == b"" and kind == 0 and size == 1:
            old = stub.read(addr, 1)
            stub.write(addr, _INT3)
            return old
        self._refuse(key, reply)
        return None

    def _remove(self, stub: StubAccess, key: _Key) -> None:
        old = self._set[key]
        if old is not None:
            stub.write(key[1], old)
            return
        reply = stub.request(b"z%x,%x,%x" % key)
        if reply != b"OK":
            self._refuse(key, reply)

    def _refuse(self, key: _Key, reply: bytes) -> None:
        kind, addr, size = key
        name = next(name for name, number in _TYPES.items() if number == kind)
        if reply == b"":
            raise UnsupportedError(f"the stub has no {name} breakpoints", feature=f"{name} breakpoint")
        raise TargetError(
            f"the stub refused a {name} breakpoint of {size} bytes at {addr:#x}: {reply[:16].decode('latin-1')!a}",
            hint="a processor has four hardware breakpoints, of 1, 2, 4 or 8 aligned bytes" if kind else "",
        )
