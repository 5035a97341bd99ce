"""What the bench makes of its figures; the measuring itself is no test."""

import dataclasses
import json

from tests.bench.enabling import MARKERS, EnableRow, KprobeRow
from tests.bench.events import EventRow
from tests.bench.firing import Attached, FiringRow
from tests.bench.growth import Growth, GrowthRow
from tests.bench.report import Report, targets, text
from tests.bench.stops import StopRates
from tests.bench.tracers import total
from tests.bench.traps import TrapRow

ENTRY = FiringRow("@ = count()", "entry", 50.0, 500.0, 10.0, (50.0,), (500.0,))
EVERY = EnableRow(
    what="every entry",
    probes=35_000,
    sites=35_000,
    cache="warm",
    typing_s=1.5,
    ending_s=0.5,
    enable_s=0.8,
    disable_s=0.3,
    attach_pause_s=0.3,
    attach_paused_total_s=0.4,
    enable_pause_s=0.25,
    enable_paused_total_s=0.3,
    disable_pause_s=0.75,
    disable_paused_total_s=0.8,
    own_enable_pause_s=0.2,
    own_disable_pause_s=0.7,
    guest_bytes=3_500_000,
)
REPORT = Report(
    machine="host: a machine",
    guest="guest: a guest",
    rounds=5,
    bare_ns=400.0,
    firing=[ENTRY, dataclasses.replace(ENTRY, point="return", probekit_ns=100.0)],
    attached=Attached(400.0, 404.0),
    stops=StopRates(gdb=400.0, stop_engine=800.0),
    enabling=[EVERY, dataclasses.replace(EVERY, what=MARKERS, enable_pause_s=0.012)],
    kprobes=[KprobeRow(10, 5.0, 7.0), KprobeRow(72, None, None)],
    guest_left=(),
    traps=[TrapRow("int3", 1200.0, 400.0, 3.0, 2.4, (1200.0,)), TrapRow("jump", 40.0, 400.0, 0.1, 0.08, (40.0,))],
    events=EventRow(1000, 60_000.0, 10_000.0),
    growth=Growth(30.0, (GrowthRow("1 function", 1, 40.0, 1.0, 2e6), GrowthRow("1 key", 1, 90.0, 1.0, 1.5e6))),
)


def test_targets_are_met_or_missed_by_the_figures() -> None:
    assert {target.what: target.met for target in targets(REPORT)} == {
        "@ = count() at entry, of bpftrace's": True,
        "@ = count() at return, of bpftrace's": False,
        "printed events a second, of bpftrace's": True,
        "firings a second, of gdb's breakpoint": True,
        "a firing by INT3": True,
        "attached, nothing enabled": True,
        "pause to enable every entry": True,
        "pause to disable every entry": False,
        "longest pause to switch on 1,000 markers": True,
        "probes of every entry": True,
        "typed to live, warm cache": True,
    }


def test_the_json_holds_every_part_and_the_ratios() -> None:
    data = json.loads(json.dumps(REPORT.json()))
    assert [row["ratio"] for row in data["firing"]] == [0.1, 0.2]
    assert data["enabling"][0]["bytes_per_probe"] == 100
    assert data["kprobes"][1]["attach_s"] is None
    assert data["traps"][0]["of_call"] == 3.0
    assert len(data["targets"]) == len(targets(REPORT)) > 9


def test_a_report_of_some_parts_only_has_only_those() -> None:
    nothing = dataclasses.replace(
        REPORT, firing=[], traps=[], events=None, growth=None, attached=None, stops=None, enabling=[], kprobes=[]
    )
    assert targets(nothing) == []
    assert text(nothing).split("\n\n")[1:] == ["The guest was left as it was found."]


def test_what_was_left_is_shouted() -> None:
    assert "LEFT IN THE GUEST: 5 bytes" in text(dataclasses.replace(REPORT, guest_left=["5 bytes"]))


def test_less_than_the_noise_is_not_believed() -> None:
    quiet = dataclasses.replace(ENTRY, probekit_ns=-3.0)
    assert quiet.ratio == 10 / 500
    assert "< 10 ns" in text(dataclasses.replace(REPORT, firing=[quiet]))


def test_totals_of_both_tracers_shapes() -> None:
    assert total({"@": {"12,sh": 1, "13,syscalls": 300}}) == 301
    assert total({"@": [{"max": -1, "count": 7}, {"min": 64, "max": 127, "count": 5}]}) == 12
    assert total([{"key": ["bash", 4], "value": 6}, {"key": ["sh", 5], "value": 4}]) == 10
    assert total([{"key": [], "value": [{"min": 0, "count": 3}, {"min": 1, "count": 4}]}]) == 7
