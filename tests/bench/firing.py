"""Nanoseconds that one firing adds to a system call.

A round measures every case with both tracers, each sample between two loops
that nothing traces::

    bare, probekit count, bare, bpftrace count, bare, probekit return, ...

What a tracer adds is its loop less the mean of its two neighbours.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise

from tests.bench.guestload import FUNCTION, calls_made, loops
from tests.bench.tracers import BenchError, Bpftrace, Probekit
from vm.guest import Guest

__all__ = ("CASES", "Attached", "Case", "FiringRow", "measure_attached", "measure_firing")


@dataclass(frozen=True, slots=True)
class Case:
    """The same count in both languages. ``point``: ``entry`` or ``return``, or words where the scripts are whole.

    ``once``: one round is enough, as bpftrace takes a minute to begin; other system calls are counted too.
    """

    what: str
    point: str
    probekit: str
    bpftrace: str
    once: bool = False

    @property
    def scripts(self) -> tuple[str, str]:
        """Both programs."""
        if self.point not in ("entry", "return"):
            return self.probekit, self.bpftrace
        kind = "kprobe" if self.point == "entry" else "kretprobe"
        return f"fbt::{FUNCTION}:{self.point} {{ {self.probekit}; }}", f"{kind}:{FUNCTION} {{ {self.bpftrace}; }}"


_LETTERS = "acdefgilmnprs"  # system calls that begin with one of these are about 300

CASES = (
    Case("@ = count()", "entry", "@ = count()", "@ = count()"),
    Case("@ = count()", "return", "@ = count()", "@ = count()"),
    Case("@[probefunc] = count()", "entry", "@[probefunc] = count()", "@[func] = count()"),
    Case("@[pid, execname] = count()", "entry", "@[pid, execname] = count()", "@[pid, comm] = count()"),
    Case("@[pid, execname] = count()", "return", "@[pid, execname] = count()", "@[pid, comm] = count()"),
    Case("@ = quantize(arg0)", "entry", "@ = quantize(arg0)", "@ = hist(arg0)"),
    Case("@ = quantize(arg1)", "return", "@ = quantize(arg1)", "@ = hist(retval)"),
    Case(
        "self->t = timestamp ... quantize(timestamp - self->t)",
        "entry and return",
        f"fbt::{FUNCTION}:entry {{ self->t = timestamp; }} "
        f"fbt::{FUNCTION}:return /self->t/ {{ @ = quantize(timestamp - self->t); self->t = 0; }}",
        f"kprobe:{FUNCTION} {{ @t[tid] = nsecs; }} "
        f"kretprobe:{FUNCTION} /@t[tid]/ {{ @ = hist(nsecs - @t[tid]); delete(@t[tid]); }}",
    ),
    Case("@[stack()] = count()", "entry", "@[stack()] = count()", "@[kstack] = count()"),
    Case(
        "@[probefunc] = count()",
        "300 system calls",
        f"{', '.join(f'fbt::__x64_sys_{letter}*:entry' for letter in _LETTERS)} {{ @[probefunc] = count(); }}",
        # Its globs match what the tracer of the guest's kernel lists, where this function has another name.
        f"{','.join((f'kprobe:{FUNCTION}', *(f'kprobe:__x64_sys_{x}*' for x in _LETTERS)))} {{ @[func] = count(); }}",
        once=True,
    ),
)


@dataclass(frozen=True, slots=True)
class FiringRow:
    """Medians of what each tracer added, in nanoseconds a firing; all samples beside them.

    ``noise_ns``: what two loops that nothing traces differ by. Less than that cannot be told from nothing.
    """

    what: str
    point: str
    probekit_ns: float
    bpftrace_ns: float
    noise_ns: float
    probekit_samples: tuple[float, ...]
    bpftrace_samples: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """probekit's cost as a part of bpftrace's: what it is at most, where it is lost in the noise."""
        return max(self.probekit_ns, self.noise_ns) / self.bpftrace_ns

    def json(self) -> dict[str, object]:
        """Everything."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True, slots=True)
class Attached:
    """Nanoseconds a call with nothing attached and with probekit attached but nothing enabled."""

    bare_ns: float
    attached_ns: float

    @property
    def ratio(self) -> float:
        """1 when it costs nothing."""
        return self.attached_ns / self.bare_ns

    def json(self) -> dict[str, object]:
        """Everything."""
        return {**asdict(self), "ratio": self.ratio}


def _check(tracer: str, case: Case, counted: int, made: int) -> None:
    # A shell of ours may call the function too, a few times; a loop that was not counted shows at once.
    if not made <= counted <= made + (1000 if not case.once else made):
        raise BenchError(f"{tracer} counted {counted} of {made} calls: {case.scripts}")


def _probekit(guest: Guest, case: Case, calls: int, times: int) -> float:
    with Probekit(guest, case.scripts[0]) as tracer:
        ns = loops(guest, calls, times)
    _check("probekit", case, tracer.result.count, calls_made(calls, times))
    return ns


def _bpftrace(guest: Guest, case: Case, calls: int, times: int) -> float:
    with Bpftrace(guest, case.scripts[1], patience=90 if case.once else 6) as tracer:
        ns = loops(guest, calls, times)
    _check("bpftrace", case, tracer.count, calls_made(calls, times))
    return ns


def measure_firing(
    guest: Guest, *, rounds: int, calls: int, times: int, progress: Callable[[str], None]
) -> tuple[list[FiringRow], float]:
    """The rows of all cases, and the median of the bare loops."""
    samples: dict[tuple[Case, str], list[float]] = {}
    bare = [loops(guest, calls, times)]
    for number in range(1, rounds + 1):
        for case in CASES:
            if case.once and number > 1:
                continue
            progress(f"firing: round {number} of {rounds}, {case.what} at {case.point}")
            for tracer, measure in (("probekit", _probekit), ("bpftrace", _bpftrace)):
                traced = measure(guest, case, calls, times)
                bare.append(loops(guest, calls, times))
                samples.setdefault((case, tracer), []).append(traced - (bare[-2] + bare[-1]) / 2)
    noise = statistics.median(abs(one - other) for one, other in pairwise(bare))
    rows = []
    for case in CASES:
        ours, theirs = tuple(samples[case, "probekit"]), tuple(samples[case, "bpftrace"])
        medians = (statistics.median(ours), statistics.median(theirs))
        rows.append(FiringRow(case.what, case.point, *medians, noise, ours, theirs))
    return rows, statistics.median(bare)


def measure_attached(guest: Guest, *, rounds: int, calls: int, times: int, progress: Callable[[str], None]) -> Attached:
    """Attached with no site in the guest, against not attached."""
    bare, attached = [], []
    for number in range(1, rounds + 1):
        progress(f"attached, nothing enabled: round {number} of {rounds}")
        bare.append(loops(guest, calls, times))
        with Probekit(guest, "BEGIN { trace(1); }"):
            attached.append(loops(guest, calls, times))
    return Attached(statistics.median(bare), statistics.median(attached))
