"""What a probe at an instruction costs, by the way that leads to it: a jump, a trap, a jump over several.

All of them count the same loop of one system call; bpftrace's kprobe counts it at the function's entry
(which its kernel reaches by ftrace, not by a trap) and at the same short instruction (a trap, as ours).
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tests.bench.guestload import FUNCTION, calls_made, loops
from tests.bench.tracers import BenchError, Bpftrace, Probekit, probekit_command
from vm.guest import Guest

__all__ = ("TRAP_LIMIT_NS", "TrapRow", "measure_traps")

TRAP_LIMIT_NS = 1500.0
"""What an INT3 probe may cost at most, on a machine where an unprobed call takes 400 ns."""

_COUNT = "{ @ = count(); }"


@dataclass(frozen=True, slots=True)
class TrapRow:
    """``what``: the way; ``added_ns``: median of what one firing added; ``bare_ns``: a call that nobody probes.

    ``of_call``: against that call; ``of_kprobe``: against bpftrace's kprobe at the entry.
    """

    what: str
    added_ns: float
    bare_ns: float
    of_call: float
    of_kprobe: float
    samples: tuple[float, ...]

    def json(self) -> dict[str, object]:
        """Everything."""
        return asdict(self)


def _offsets(guest: Guest) -> tuple[int, int]:
    """A short instruction of the function, which takes a trap, and a long one behind its entry."""
    argv = (*probekit_command(), "--json", "-l", "-v", "-r", guest.gdb, "-n", f"kinst::{FUNCTION}:")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    found: dict[bool, int] = {}
    for line in done.stdout.splitlines():
        listed = json.loads(line)
        offset = int(listed["probe"]["name"])
        if listed["type"] == "listing" and offset:
            found.setdefault(any("int3" in note for note in listed.get("notes", ())), offset)
    if set(found) != {True, False}:
        raise BenchError(f"{FUNCTION} has no instruction of each kind\n{done.stderr[-1000:]}")
    return found[True], found[False]


def measure_traps(
    guest: Guest, *, rounds: int, calls: int, times: int, progress: Callable[[str], None]
) -> list[TrapRow]:
    """The rows, in the order of their cost as one would expect it."""
    short, long = _offsets(guest)
    cases: dict[str, Probekit | Bpftrace] = {
        "jump at a long instruction": Probekit(guest, f"kinst::{FUNCTION}:{long} {_COUNT}"),
        "jump over several": Probekit(guest, f"#pragma D option kinstjump\nkinst::{FUNCTION}:{short} {_COUNT}"),
        "int3": Probekit(guest, f"kinst::{FUNCTION}:{short} {_COUNT}"),
        "int3, a clause": Probekit(guest, f"kinst::{FUNCTION}:{short} {{ @[pid, execname] = count(); }}"),
        "bpftrace kprobe at entry": Bpftrace(guest, f"kprobe:{FUNCTION} {_COUNT}"),
        "bpftrace kprobe at int3": Bpftrace(guest, f"kprobe:{FUNCTION}+{short} {_COUNT}"),
    }
    samples: dict[str, list[float]] = {what: [] for what in cases}
    bare = [loops(guest, calls, times)]
    for number in range(1, rounds + 1):
        for what, tracer in cases.items():
            progress(f"traps: round {number} of {rounds}, {what}")
            with tracer:
                traced = loops(guest, calls, times)
            counted = tracer.result.count if isinstance(tracer, Probekit) else tracer.count
            made = calls_made(calls, times)
            if not made <= counted <= made + 1000:
                raise BenchError(f"{what} counted {counted} of {made} calls")
            bare.append(loops(guest, calls, times))
            samples[what].append(traced - (bare[-2] + bare[-1]) / 2)
    plain = statistics.median(bare)
    added = {what: statistics.median(values) for what, values in samples.items()}
    kprobe = added["bpftrace kprobe at entry"]
    return [TrapRow(what, ns, plain, ns / plain, ns / kprobe, tuple(samples[what])) for what, ns in added.items()]
