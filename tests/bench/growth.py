"""How the cost of a firing grows with functions and keys, and how far it is from a detour written by hand.

The same loop of one system call each time. With more functions probed more of them fire in a call, so what a call
takes longer is divided by how many fired in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from probekit.isa.assemble import assemble
from probekit.patch.detours import site_edit
from probekit.patch.sites import EntrySite, entry_site
from probekit.session.attach import AttachOptions, attach
from tests.bench.guestload import FUNCTION, calls_made, loops
from tests.bench.tracers import BenchError, Probekit
from tests.live.codelab import code_lab
from vm.guest import Guest

__all__ = ("Growth", "GrowthRow", "measure_growth")

_THIS = f"fbt::{FUNCTION}:entry"
_FUNCTIONS = {
    "1 function": _THIS,
    "about 10 functions": f"{_THIS}, fbt::vfs_s*:entry",
    "about 1,000 functions": f"{_THIS}, fbt::x*:entry, fbt::tcp_*:entry, fbt::udp*:entry, fbt::ip_*:entry",
    "every function": "fbt:::entry",
}
_KEYS = {"1 key": 1, "100 keys": 100, "100,000 keys": 100_000}
_ENTRY_BYTES = 16


@dataclass(frozen=True, slots=True)
class GrowthRow:
    """``what``; how many probes; ``added_ns``: a firing, median of the rounds; ``fired``: firings in one call.

    ``rate``: firings a second on that one CPU.
    """

    what: str
    probes: int
    added_ns: float
    fired: float
    rate: float


@dataclass(frozen=True, slots=True)
class Growth:
    """``floor_ns``: what a detour adds that does nothing but increment one word."""

    floor_ns: float
    rows: tuple[GrowthRow, ...]

    def json(self) -> dict[str, object]:
        """Everything."""
        return asdict(self)


@contextmanager
def _by_hand(guest: Guest) -> Iterator[None]:
    """The function counts itself in one word of memory; read back at the end."""
    with attach(guest.gdb, AttachOptions()) as attachment, code_lab(attachment) as lab:
        addr = attachment.kernel.symbols.addr(FUNCTION)
        if addr is None:
            raise BenchError(f"no {FUNCTION}")
        text, clock = attachment.text, attachment.clock
        with clock.paused():
            site = entry_site(addr, text.read_many([(addr, _ENTRY_BYTES)])[0] or b"")
            if not isinstance(site, EntrySite):
                raise BenchError(f"{FUNCTION} cannot be detoured")
            back = site.addr + len(site.old)
            detour = f"push rax; mov rax, {lab.data.addr:#x}; inc qword ptr [rax]; pop rax; jmp {back:#x}"
            edit = site_edit(site, lab.code.addr)
            text.write_many([(lab.code.addr, assemble(detour, lab.code.addr)), (edit.addr, edit.new)])
        try:
            yield
        finally:
            with clock.paused():
                text.write_many([(edit.addr, edit.old)])
                counted = text.read_many([(lab.data.addr, 8)])[0] or b""
        if not int.from_bytes(counted, "little"):
            raise BenchError("the detour by hand counted nothing")


def _scripts() -> Iterator[tuple[str, str]]:
    for what, probes in _FUNCTIONS.items():
        yield what, f"{probes} {{ @[probefunc] = count(); }}"
    for what, keys in _KEYS.items():
        options = "#pragma D option aggsize=16m\n"
        yield what, f"{options} uint64_t n; {_THIS} {{ @[n++ % {keys}] = count(); }}"


def measure_growth(guest: Guest, *, rounds: int, calls: int, times: int, progress: Callable[[str], None]) -> Growth:
    """All rows. Each lies between two bare loops."""
    scripts = dict(_scripts())
    floor: list[float] = []
    samples: dict[str, list[tuple[float, float, float, int]]] = {what: [] for what in scripts}
    bare = [loops(guest, calls, times)]
    for number in range(1, rounds + 1):
        progress(f"growth: round {number} of {rounds}, a detour by hand")
        with _by_hand(guest):
            traced = loops(guest, calls, times)
        bare.append(loops(guest, calls, times))
        floor.append(traced - (bare[-2] + bare[-1]) / 2)
        for what, script in scripts.items():
            progress(f"growth: round {number} of {rounds}, {what}")
            with Probekit(guest, script) as tracer:
                traced = loops(guest, calls, times)
            bare.append(loops(guest, calls, times))
            # What fires besides, in ticks and in the shells that start the loops, is little against a whole loop.
            fired = max(tracer.result.count / calls_made(calls, times), 1.0)
            added = (traced - (bare[-2] + bare[-1]) / 2) / fired
            samples[what].append((added, fired, fired / traced * 1e9, tracer.result.probes))
    rows = []
    for what, found in samples.items():
        added, fired, rate = (statistics.median(sample[at] for sample in found) for at in (0, 1, 2))
        rows.append(GrowthRow(what, int(found[0][3]), added, fired, rate))
    return Growth(statistics.median(floor), tuple(rows))
