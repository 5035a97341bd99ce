"""Read and write guest memory through a stub's packets ``m`` and ``M``, virtual and physical."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from probekit.errors import MachineRan, MemoryAccessError, UnsupportedError
from probekit.target.memory_packets import join_replies, plan_reads, plan_writes
from probekit.target.packets import to_hex
from probekit.target.queries import printable_reply
from probekit.target.stub_session import StubSession

__all__ = ("StubMemory",)


class StubMemory:
    """Guest memory as one connection sees it. The machine must be stopped."""

    def __init__(self, session: StubSession) -> None:
        self._session = session

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See :meth:`probekit.target.api.Target.read_many`."""
        session = self._session
        plan = plan_reads(ranges, session.features.read_size)
        replies = session.exchange_memory([b"m%x,%x" % piece for piece in plan.pieces])
        return join_replies(plan, replies, self._read_rest)

    def _read_rest(self, addr: int, size: int) -> bytes:
        """Ask for what a stub left out of a short reply."""
        return self._session.link.request(b"m%x,%x" % (addr, size))

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """See :meth:`probekit.target.api.Target.write_many`. Edits without a gap between them share a packet."""
        session = self._session
        pieces = plan_writes(edits, session.features.write_size)
        replies = session.exchange_memory([b"M%x,%x:%b" % (addr, len(data), to_hex(data)) for addr, data in pieces])
        if replies.count(b"OK") == len(replies):
            return
        for (addr, data), reply in zip(pieces, replies, strict=True):
            if reply != b"OK":
                raise MemoryAccessError(
                    f"guest memory {addr:#x} ({len(data)} bytes) cannot be written: {printable_reply(reply)}",
                    addr=addr,
                    size=len(data),
                )

    def write_once(self, addr: int, data: bytes) -> None:
        """Write what fits in one packet. Raises :class:`MachineRan`, with nothing written, when the machine runs."""
        session = self._session
        session.select_for_memory()
        reply = session.link.request_once(b"M%x,%x:%b" % (addr, len(data), to_hex(data)))
        if session.heed_stops() or reply is None:
            raise MachineRan(f"{session.name}: somebody let the machine run before memory was written")
        if reply != b"OK":
            message = f"guest memory {addr:#x} ({len(data)} bytes) cannot be written: {printable_reply(reply)}"
            raise MemoryAccessError(message, addr=addr, size=len(data))

    @contextlib.contextmanager
    def physical(self) -> Iterator[None]:
        """Make every address a guest *physical* one within the context.

        Raises :class:`UnsupportedError` where the stub has no such mode.
        """
        session = self._session
        if not session.features.physical:
            raise UnsupportedError(
                f"{session.name}: the stub has no physical memory mode",
                feature="physical memory",
                hint="QEMU has it since 4.1 (Qqemu.PhyMemMode)",
            )
        session.need_stopped()
        session.expect_ok(b"Qqemu.PhyMemMode:1", "physical memory mode")
        try:
            yield
        finally:
            if not session.running and not session.closed:
                session.expect_ok(b"Qqemu.PhyMemMode:0", "virtual memory mode")
