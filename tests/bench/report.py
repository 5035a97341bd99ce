"""The figures as tables for people and as one JSON object, and the targets they are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from tests.bench.enabling import KPROBE_SECONDS, MARKERS, EnableRow, KprobeRow
from tests.bench.events import EventRow
from tests.bench.firing import Attached, FiringRow
from tests.bench.growth import Growth
from tests.bench.stops import StopRates
from tests.bench.traps import TRAP_LIMIT_NS, TrapRow

__all__ = ("Report", "Target", "targets", "text")

# What two runs of the same loop may differ by.
_NOISE = 0.03

_AT_MOST = {
    "@ = count()": 1 / 10,
    "@[probefunc] = count()": 1 / 10,
    "@[pid, execname] = count()": 1 / 5,
    "@ = quantize(arg0)": 1 / 10,
    "@ = quantize(arg1)": 1 / 10,
    "self->t = timestamp ... quantize(timestamp - self->t)": 1 / 6,
    "@[stack()] = count()": 1 / 1.5,
}
"""What a firing may add, as a part of what bpftrace's adds."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured."""

    machine: str
    guest: str
    rounds: int
    bare_ns: float
    firing: Sequence[FiringRow]
    attached: Attached | None
    stops: StopRates | None
    enabling: Sequence[EnableRow]
    kprobes: Sequence[KprobeRow]
    guest_left: Sequence[str]
    traps: Sequence[TrapRow] = ()
    events: EventRow | None = None
    growth: Growth | None = None

    def json(self) -> dict[str, object]:
        """One object for programs."""
        return {
            "machine": self.machine,
            "guest": self.guest,
            "rounds": self.rounds,
            "bare_ns": self.bare_ns,
            "firing": [row.json() for row in self.firing],
            "traps": [row.json() for row in self.traps],
            "events": self.events and self.events.json(),
            "growth": self.growth and self.growth.json(),
            "attached": self.attached and self.attached.json(),
            "stops": self.stops and self.stops.json(),
            "enabling": [row.json() for row in self.enabling],
            "kprobes": [row.json() for row in self.kprobes],
            "guest_left": list(self.guest_left),
            "targets": [asdict(target) for target in targets(self)],
        }


@dataclass(frozen=True, slots=True)
class Target:
    """What was aimed at. ``met``: whether it was reached."""

    what: str
    aim: str
    measured: str
    met: bool


def targets(report: Report) -> list[Target]:
    """The project's targets, those of them that were measured."""
    return [*_cost_targets(report), *_enable_targets({row.what: row for row in report.enabling})]


def _cost_targets(report: Report) -> Iterator[Target]:
    for row in report.firing:
        if (most := _AT_MOST.get(row.what)) is not None:
            what = f"{row.what} at {row.point}, of bpftrace's"
            yield Target(what, f"≤ {most:.3f}", f"{row.ratio:.3f}", row.ratio <= most)
    if report.events is not None:
        ratio = report.events.ratio
        yield Target("printed events a second, of bpftrace's", "≥ 5", f"{ratio:.1f}", ratio >= 5)
    if report.growth is not None and report.stops is not None:
        times = max(row.rate for row in report.growth.rows) / report.stops.gdb
        yield Target("firings a second, of gdb's breakpoint", "≥ 5,000", f"{times:,.0f}", times >= 5000)
    for trap in report.traps:
        if trap.what == "int3":
            limit, cost = f"≤ {TRAP_LIMIT_NS:,.0f} ns", f"{trap.added_ns:,.0f} ns"
            yield Target("a firing by INT3", limit, cost, trap.added_ns <= TRAP_LIMIT_NS)
    if report.attached is not None:
        change = report.attached.ratio - 1
        yield Target("attached, nothing enabled", "nothing", f"{change:+.1%}", abs(change) <= _NOISE)


def _enable_targets(rows: Mapping[str, EnableRow]) -> Iterator[Target]:
    for what, limit in (("every entry", 0.5), ("every entry and return", 1.0)):
        if row := rows.get(what):
            for name, pause in (("enable", row.enable_pause_s), ("disable", row.disable_pause_s)):
                yield Target(f"pause to {name} {what}", f"≤ {limit:g} s", f"{pause:.2f} s", pause <= limit)
    if row := rows.get(MARKERS):
        pause = row.enable_pause_s
        yield Target(f"longest pause to switch on {MARKERS}", "≤ 20 ms", f"{pause * 1e3:.1f} ms", pause <= 0.02)
    if row := rows.get("every entry"):
        yield Target("probes of every entry", "≥ 30,000", f"{row.probes:,}", row.probes >= 30_000)
        yield Target("typed to live, warm cache", "≤ 2 s", f"{row.typing_s:.2f} s", row.typing_s <= 2)
    if row := rows.get("every entry, cold cache"):
        yield Target("typed to live, cold cache", "≤ 4 s", f"{row.typing_s:.2f} s", row.typing_s <= 4)


def text(report: Report) -> str:
    """Tables."""
    left = report.guest_left
    end = "The guest was left as it was found." if not left else "LEFT IN THE GUEST: " + "; ".join(left)
    head = "\n".join((report.machine, report.guest, f"medians of {report.rounds} rounds"))
    parts = (_firing, _growth, _events, _traps, _attached, _stops, _enabling, _kprobes, _aims)
    sections = [part(report) for part in parts]
    return "\n\n".join((head, *(section for section in sections if section), end))


def _firing(report: Report) -> str:
    rows = []
    for r in report.firing:
        lost = r.probekit_ns < r.noise_ns
        ours = f"< {r.noise_ns:.0f} ns" if lost else f"{r.probekit_ns:.0f} ns"
        ratio = f"{'< ' if lost else ''}{r.ratio:.3f}"
        rows.append((f"{r.what} at {r.point}", ours, f"{r.bpftrace_ns:.0f} ns", ratio, f"{1 / r.ratio:.0f}x"))
    return _table(
        f"Added by one firing to a system call of {report.bare_ns:.0f} ns:",
        ("", "probekit", "bpftrace", "ratio", "cheaper"),
        rows,
    )


def _growth(report: Report) -> str:
    if report.growth is None:
        return ""
    floor = report.growth.floor_ns
    rows = [("a detour by hand, one increment", "1", f"{floor:,.0f} ns", "", "", "")]
    rows += [
        (
            r.what,
            f"{r.probes:,}",
            f"{r.added_ns:,.0f} ns",
            f"{r.fired:,.1f}",
            f"{r.added_ns - floor:+,.0f} ns",
            f"{r.rate:,.0f}",
        )
        for r in report.growth.rows
    ]
    return _table(
        "How a firing's cost grows, `@[probefunc] = count()` by functions and `@[n++ % N] = count()` by keys:",
        ("", "probes", "a firing adds", "fired in a call", "beyond the detour", "firings/s on one CPU"),
        rows,
    )


def _events(report: Report) -> str:
    e = report.events
    if e is None:
        return ""
    return (
        f"printf() of three values, {e.events:,} times as fast as it goes, none lost: probekit {e.probekit:,.0f} lines "
        f"a second, bpftrace {e.bpftrace:,.0f} ({e.ratio:.1f}x)."
    )


def _traps(report: Report) -> str:
    rows = [(r.what, f"{r.added_ns:,.0f} ns", f"{r.of_call:.2f}", f"{r.of_kprobe:.2f}") for r in report.traps]
    return _table(
        "Added by one firing in the middle of a function:", ("", "", "of a call", "of bpftrace's kprobe at entry"), rows
    )


def _attached(report: Report) -> str:
    a = report.attached
    if a is None:
        return ""
    return (
        f"Attached with nothing enabled, a call takes {a.attached_ns:.1f} ns; "
        f"not attached, {a.bare_ns:.1f} ns ({a.ratio - 1:+.1%})."
    )


def _stops(report: Report) -> str:
    s = report.stops
    if s is None:
        return ""
    rates = (("gdb Python breakpoint", s.gdb), ("probekit --engine stop", s.stop_engine))
    return _table(
        "Where every firing stops the guest:",
        ("", "firings", "each", "of gdb's"),
        [(name, f"{rate:,.0f}/s", f"{1e6 / rate:,.0f} µs", f"{rate / s.gdb:.1f}x") for name, rate in rates],
    )


def _enabling(report: Report) -> str:
    rows = [
        (
            r.what,
            f"{r.probes:,}",
            f"{r.sites:,}",
            f"{r.typing_s:.2f} s",
            f"{r.ending_s:.2f} s",
            f"{r.attach_pause_s:.3f} s",
            f"{r.enable_pause_s:.3f} s",
            f"{r.disable_pause_s:.3f} s",
            f"{r.guest_bytes / max(r.probes, 1):,.0f}",
        )
        for r in report.enabling
    ]
    return _table(
        "probekit, enabling and disabling; on the right the longest stop of the guest in each phase, by QEMU's events:",
        ("", "probes", "sites", "typed to live", "Ctrl-C to end", "attach", "enable", "disable", "bytes a probe"),
        rows,
    )


def _kprobes(report: Report) -> str:
    def seconds(value: float | None) -> str:
        return "too long" if value is None else f"{value:.2f} s"

    rows = [(f"{k.kprobes} kprobes", seconds(k.attach_s), seconds(k.whole_s)) for k in report.kprobes]
    title = f"bpftrace, enabling and disabling (too long: over {KPROBE_SECONDS:g} s):"
    return _table(title, ("", "typed to live", "whole run"), rows)


def _aims(report: Report) -> str:
    rows = [(t.what, t.aim, t.measured, "met" if t.met else "MISSED") for t in targets(report)]
    return _table("Targets:", ("", "aim", "measured", ""), rows)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right; nothing if there are no rows."""
    if not rows:
        return ""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *rest = zip(row, widths, strict=True)
        cells = (f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in rest))
        return ("  " + "  ".join(cells)).rstrip()

    return "\n".join((title, line(head), *map(line, rows)))
