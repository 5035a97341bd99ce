"""``python -m tests.bench [--quick] [--json FILE] [--only PART]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.bench.enabling import EnableRow, KprobeRow, measure_enabling, measure_kprobes
from tests.bench.events import EventRow, measure_events
from tests.bench.firing import Attached, FiringRow, measure_attached, measure_firing
from tests.bench.growth import Growth, measure_growth
from tests.bench.report import Report, text
from tests.bench.stops import StopRates, measure_stops
from tests.bench.tracers import BenchError, recover
from tests.bench.traps import TrapRow, measure_traps
from vm.errors import VmError
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

PARTS = ("firing", "growth", "events", "traps", "attached", "stops", "enabling", "kprobes")


def _note(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def _machine() -> str:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"host: {model}, {os.cpu_count()} CPUs, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}"


def _left(guest: Guest, text_before: KernelCode, before: bytes) -> list[str]:
    """What probekit or this bench left in the guest: nothing, one hopes."""
    found = []
    said = recover(guest)
    _note(f"recover: {said}")
    changed = differences(before, text_before.read())
    if changed:
        found.append(f"{len(changed)} bytes of kernel code, the first at {changed[0]:#x}")
    found += [f"console: {line}" for line in guest.console_problems()]
    return found


def _measure(options: argparse.Namespace) -> Report:
    rounds, calls, times = (2, 1_000, 150) if options.quick else (options.rounds, 1_000, 400)
    parts = options.only or PARTS
    firing: list[FiringRow] = []
    bare_ns = 0.0
    traps: list[TrapRow] = []
    events: EventRow | None = None
    growth: Growth | None = None
    attached: Attached | None = None
    stops: StopRates | None = None
    enabling: list[EnableRow] = []
    kprobes: list[KprobeRow] = []
    with Guest.start(kernel=options.kernel, bpftrace=True, memory=2048, progress=_note) as guest:
        code = KernelCode.locate(guest)
        before = code.read()
        if "firing" in parts:
            firing, bare_ns = measure_firing(guest, rounds=rounds, calls=calls, times=times, progress=_note)
        if "growth" in parts:
            growth = measure_growth(guest, rounds=rounds, calls=calls, times=times, progress=_note)
        if "events" in parts:
            events = measure_events(guest, rounds=rounds, events=50_000, progress=_note)
        if "traps" in parts:
            traps = measure_traps(guest, rounds=rounds, calls=calls, times=times, progress=_note)
        if "attached" in parts:
            attached = measure_attached(guest, rounds=rounds, calls=calls, times=times, progress=_note)
        if "stops" in parts:
            stops = measure_stops(guest, rounds=min(rounds, 3), firings=2000, progress=_note)
        if "enabling" in parts:
            enabling = measure_enabling(guest, rounds=rounds, progress=_note)
        if "kprobes" in parts:
            kprobes = measure_kprobes(guest, counts=(10, 72) if options.quick else (10, 72, 362), progress=_note)
        left = _left(guest, code, before)
        about = f"guest: Linux {guest.release}, {guest.smp} CPUs under TCG ({guest.record.tcg}), {guest.memory} MiB"
    return Report(
        machine=_machine(),
        guest=about,
        rounds=rounds,
        bare_ns=bare_ns,
        firing=firing,
        attached=attached,
        stops=stops,
        enabling=enabling,
        kprobes=kprobes,
        guest_left=left,
        traps=traps,
        events=events,
        growth=growth,
    )


def _on_signal(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status: 0 unless something failed or was left in the guest."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What a probe costs.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--kernel", default="6.1-cloud", help="see: python -m vm kernels")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    try:
        report = _measure(options)
    except (VmError, BenchError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(text(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report.json(), indent=1) + "\n")
    return 1 if report.guest_left else 0


sys.exit(main())
