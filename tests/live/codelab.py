"""Machine code of a test's own, run by a live guest while memory is watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from probekit.enabling.stop_engine.watch import Watcher, WatchHit, WatchSite
from probekit.guest.linux import Allocation
from probekit.guest.safepoint import SafePoint
from probekit.isa.assemble import assemble
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe, WatchedRange
from probekit.session.attach import Attachment
from probekit.target.api import StopReason
from probekit.target.rsp import RspTarget

__all__ = ("PAGES", "CodeLab", "code_lab")

PAGES = 3


class _Between:
    """The target, with every stop shown to somebody before the caller of ``wait`` hears of it."""

    def __init__(self, target: RspTarget, served: Callable[[StopReason], bool]) -> None:
        self._target = target
        self._served = served

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def wait(self, timeout: float) -> StopReason | None:
        deadline = time.monotonic() + timeout
        while (stop := self._target.wait(max(deadline - time.monotonic(), 0))) is not None and self._served(stop):
            self._target.resume()
        return stop


@dataclass
class CodeLab:
    """``code``: executable guest memory; ``data``: three pages, zero before each run but for what a test writes."""

    attachment: Attachment
    target: RspTarget
    code: Allocation
    data: Allocation

    def watcher(self, *ranges: tuple[int, int, str], target: Any = None) -> Watcher:
        """``ranges``: offset in ``data``, size, ``read`` or ``write``."""
        sites = [
            WatchSite(
                n,
                Probe(n, ProbeName("mem", "", "", kind), "watch"),
                WatchedRange(self.data.addr + offset, size, kind),  # type: ignore[arg-type]
                (),
            )
            for n, (offset, size, kind) in enumerate(ranges)
        ]
        facts, text = self.attachment.facts, self.attachment.text
        starts = {self.code.addr: self.code.size}
        return Watcher(
            target or self.target,
            text,
            sites,
            landings=facts.call_points.landings,
            start_of=lambda addr: next((a for a, size in starts.items() if a <= addr < a + size), None),
        )

    def run(
        self, text: str, *args: int, watch: Sequence[tuple[int, int, str]] = (), fill: Sequence[tuple[int, bytes]] = ()
    ) -> tuple[int, list[WatchHit], Watcher]:
        """Call ``text`` with RDI, RSI, RDX = ``args``; what it returned in RAX, and the hits in order.

        ``fill``: offset in ``data`` and bytes, written before.
        """
        target, watcher = self.target, self.watcher(*watch)
        hits: list[WatchHit] = []

        def served(stop: StopReason) -> bool:
            found = watcher.hits(stop)
            hits.extend(found)
            return stop.kind == "watch" or bool(found)

        if target.running:
            target.stop()
        target.write(self.code.addr, assemble(text, self.code.addr))
        target.write(self.data.addr, bytes(self.data.size))
        for offset, data in fill:
            target.write(self.data.addr + offset, data)
        between: Any = _Between(target, served)
        with SafePoint(between, self.attachment.facts.call_points) as point:
            watcher.arm()
            try:
                result = point.call(self.code.addr, *args)
            finally:
                if target.running:
                    target.stop()
                watcher.disarm()
        target.resume()
        return result, hits, watcher


@contextmanager
def code_lab(attachment: Attachment) -> Iterator[CodeLab]:
    """Guest memory for the length of a test."""
    target, services = attachment.target, attachment.facts.services
    assert isinstance(target, RspTarget)
    with SafePoint(target, attachment.facts.call_points) as point:
        code = services.allocate(point, "exec", 4096)
        services.make_executable(point, code)
        data = services.allocate(point, "data", PAGES * 4096)
    target.resume()
    try:
        yield CodeLab(attachment, target, code, data)
    finally:
        with SafePoint(target, attachment.facts.call_points) as point:
            services.free(point, code)
            services.free(point, data)
        target.resume()
