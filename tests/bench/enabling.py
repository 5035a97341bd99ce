"""Time to enable and disable few and all functions, and how long the guest stood still.

Two watches run: probekit's own figures, and QEMU's STOP and RESUME events. The
guest does light work all the while. bpftrace gets the guest's system calls, as
many as its time allows.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tests.bench.guestload import steady_work
from tests.bench.pauses import PauseWatch
from tests.bench.tracers import BenchError, Outcome, Probekit, probekit_command
from vm.errors import ExecTimeoutError
from vm.guest import Guest

__all__ = ("KPROBE_SECONDS", "MARKERS", "EnableRow", "KprobeRow", "measure_enabling", "measure_kprobes")

KPROBE_SECONDS = 60.0
MARKERS = "1,000 markers"


@dataclass(frozen=True, slots=True)
class EnableRow:
    """Medians. ``attach_pause_s``, ``enable_pause_s`` and ``disable_pause_s``: the longest pause that QEMU told of.

    ``typing_s``: from the start of the process to live probes; ``ending_s``: from Ctrl-C to its end.
    ``enable_s``, ``disable_s``, ``own_*`` and ``guest_bytes`` (of guest memory) are probekit's own word.
    """

    what: str
    probes: int
    sites: int
    cache: str
    typing_s: float
    ending_s: float
    enable_s: float
    disable_s: float
    attach_pause_s: float
    attach_paused_total_s: float
    enable_pause_s: float
    enable_paused_total_s: float
    disable_pause_s: float
    disable_paused_total_s: float
    own_enable_pause_s: float
    own_disable_pause_s: float
    guest_bytes: int

    def json(self) -> dict[str, object]:
        """Everything."""
        return {**asdict(self), "bytes_per_probe": self.guest_bytes / max(self.probes, 1)}


@dataclass(frozen=True, slots=True)
class KprobeRow:
    """bpftrace: ``kprobes`` asked for; seconds from its start until all were live and until it had ended, or None."""

    kprobes: int
    attach_s: float | None
    whole_s: float | None

    def json(self) -> dict[str, object]:
        """Everything."""
        return asdict(self)


def _kernel_functions(guest: Guest) -> list[str]:
    """The functions of the kernel that probekit can probe at their entry."""
    argv = (*probekit_command(), "-r", guest.gdb, "-l", "-n", "fbt:vmlinux::entry")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv)}: status {done.returncode}\n{done.stderr}")
    return [line.split()[3] for line in done.stdout.splitlines()[1:]]


def _prefix(functions: Sequence[str], wanted: int) -> str:
    """The beginning of a name that picks out about that many functions."""
    counts = Counter(name[:length] for name in functions for length in range(1, 9))
    return min(counts, key=lambda prefix: abs(counts[prefix] - wanted))


def _scripts(guest: Guest) -> dict[str, str]:
    """What to enable, by name."""
    functions = _kernel_functions(guest)
    few = {f"about {count:,}": f"fbt::{_prefix(functions, count)}*:entry" for count in (10, 1000)}
    descriptions = few | {
        MARKERS: "marker:pk_demo:many*:",
        "every entry": "fbt:::entry",
        "every entry and return": "fbt:::",
    }
    return {what: f"{description} {{ @[probefunc] = count(); }}" for what, description in descriptions.items()}


def _once_enabled(guest: Guest, script: str, watch: PauseWatch, cache: str | None) -> tuple[Outcome, EnableRow]:
    environment = {} if cache is None else {"XDG_CACHE_HOME": cache}
    with Probekit(guest, script, environment=environment) as tracer:
        time.sleep(1)
    outcome, stats = tracer.result, tracer.result.stats
    attach = watch.between(outcome.started, outcome.attached)
    enable = watch.between(outcome.attached, outcome.live)
    disable = watch.between(outcome.interrupted, outcome.ended)
    row = EnableRow(
        what="",
        probes=outcome.probes,
        sites=int(stats.get("sites", 0)),
        cache="warm" if cache is None else "cold",
        typing_s=outcome.enable_s,
        ending_s=outcome.disable_s,
        enable_s=stats.get("enable_s", 0.0),
        disable_s=stats.get("disable_s", 0.0),
        attach_pause_s=attach.longest,
        attach_paused_total_s=attach.total,
        enable_pause_s=enable.longest,
        enable_paused_total_s=enable.total,
        disable_pause_s=disable.longest,
        disable_paused_total_s=disable.total,
        own_enable_pause_s=stats.get("enable_pause_s", 0.0),
        own_disable_pause_s=stats.get("disable_pause_s", 0.0),
        guest_bytes=int(stats.get("guest_bytes", 0)),
    )
    return outcome, row


def _median(what: str, rows: Sequence[EnableRow]) -> EnableRow:
    middles: dict[str, Any] = {
        field.name: statistics.median(float(getattr(row, field.name)) for row in rows)
        for field in fields(EnableRow)
        if field.name.endswith("_s")
    }
    return replace(rows[0], what=what, **middles)


def measure_enabling(guest: Guest, *, rounds: int, progress: Callable[[str], None]) -> list[EnableRow]:
    """Each script, taking turns; all of them with a warm cache, every entry with a cold one as well."""
    guest.insmod("pk_demo", progress)
    scripts = _scripts(guest)
    runs: dict[str, list[EnableRow]] = {}
    with steady_work(guest), PauseWatch(guest.qmp2) as watch:
        for number in range(1, rounds + 1):
            for what, script in scripts.items():
                progress(f"enabling: round {number} of {rounds}, {what}")
                outcome, row = _once_enabled(guest, script, watch, None)
                runs.setdefault(what, []).append(row)
                if "every" in what and not outcome.count:
                    raise BenchError(f"{what}: nothing was counted in a guest that works")
            with tempfile.TemporaryDirectory() as empty:
                progress(f"enabling: round {number} of {rounds}, every entry, cold cache")
                _, row = _once_enabled(guest, scripts["every entry"], watch, empty)
                runs.setdefault("every entry, cold cache", []).append(row)
    return [_median(what, rows) for what, rows in runs.items()]


def _uptime(guest: Guest) -> float:
    return float(guest.check("cat /proc/uptime").split()[0])


def _kprobes(guest: Guest, functions: Sequence[str]) -> KprobeRow:
    # bpftrace runs the command once every probe is attached, and ends with it.
    script = ",".join(f"kprobe:{name}" for name in functions) + " { @[func] = count(); }"
    guest.check(f"cat >/tmp/bench.bt <<'END'\n{script}\nEND")
    command = "bpftrace -c '/bin/cat /proc/uptime' /tmp/bench.bt"
    started = _uptime(guest)
    try:
        done = guest.exec(f"timeout -s INT {KPROBE_SECONDS:g} {command}", timeout=4 * KPROBE_SECONDS)
    except ExecTimeoutError:
        return KprobeRow(len(functions), None, None)
    ended = _uptime(guest)
    for line in done.output.splitlines():
        words = line.split()
        if len(words) == 2 and all(word.replace(".", "", 1).isdigit() for word in words):
            return KprobeRow(len(functions), float(words[0]) - started, ended - started)
    if ended - started >= KPROBE_SECONDS:
        return KprobeRow(len(functions), None, None)
    raise BenchError(f"bpftrace with {len(functions)} kprobes: status {done.status}\n{done.output[-1000:]}")


def measure_kprobes(guest: Guest, *, counts: Sequence[int], progress: Callable[[str], None]) -> list[KprobeRow]:
    """bpftrace on more and more system calls, until one number takes too long."""
    text = guest.check("grep ^__x64_sys_ /sys/kernel/tracing/available_filter_functions")
    calls = sorted({line.split()[0] for line in text.splitlines()})
    rows: list[KprobeRow] = []
    with steady_work(guest):
        for count in counts:
            progress(f"enabling: bpftrace, {count} kprobes")
            rows.append(_kprobes(guest, calls[:count]))
            if rows[-1].attach_s is None:
                break
    return rows
