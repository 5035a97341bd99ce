"""Flow indentation."""

from __future__ import annotations

from probekit.consumer.events import Event, Message, ProbeFired, ProbeIdentity
from probekit.consumer.flow import FlowTracker
from probekit.probe.names import ProbeName

_IDS: dict[ProbeName, int] = {}


def fired(text: str, *, clause: int = 0, cpu: int = 0) -> ProbeFired:
    name = ProbeName(*text.split(":"))
    probe = ProbeIdentity(_IDS.setdefault(name, len(_IDS) + 1), name)
    return ProbeFired(cpu=cpu, probe=probe, clause=clause, timestamp=0, items=())


def drawn(events: list[Event]) -> list[tuple[int, str, bool] | None]:
    flows = [e.flow if isinstance(e, ProbeFired) else None for e in events]
    return [(f.indent, f.prefix, f.named) if f else None for f in flows]


def test_calls_nest() -> None:
    events = [fired(f"fbt:v:{n}") for n in ("a:entry", "b:entry", "b:return", "a:return")]
    assert drawn(FlowTracker().annotate(events)) == [
        (0, " -> ", False),
        (2, " -> ", False),
        (2, " <- ", False),
        (0, " <- ", False),
    ]


def test_other_probes_stand_inside() -> None:
    events = [fired("syscall::read:entry"), fired("io:::start"), fired("syscall::read:return")]
    assert drawn(FlowTracker().annotate(events)) == [(0, " => ", False), (2, "| ", True), (0, " <= ", False)]


def test_cpus_are_apart_and_depth_lasts_between_batches() -> None:
    tracker = FlowTracker()
    first = tracker.annotate([fired("fbt:v:a:entry"), fired("fbt:v:a:entry", cpu=1), Message("hello")])
    assert drawn(first) == [(0, " -> ", False), (0, " -> ", False), None]
    assert drawn(tracker.annotate([fired("fbt:v:b:entry")])) == [(2, " -> ", False)]


def test_two_clauses_indent_once() -> None:
    events = [
        fired("fbt:v:a:entry", clause=0),
        fired("fbt:v:a:entry", clause=1),
        fired("fbt:v:a:return", clause=0),
        fired("fbt:v:a:return", clause=1),
    ]
    assert drawn(FlowTracker().annotate(events)) == [
        (0, " -> ", False),
        (2, "| ", True),
        (2, "| ", True),
        (0, " <- ", False),
    ]


def test_recursion_is_not_a_second_clause() -> None:
    events = [fired("fbt:v:a:entry"), fired("fbt:v:a:entry"), fired("fbt:v:a:return"), fired("fbt:v:a:return")]
    assert [f[0] for f in drawn(FlowTracker().annotate(events)) if f] == [0, 2, 2, 0]


def test_a_return_whose_entry_was_not_seen() -> None:
    assert drawn(FlowTracker().annotate([fired("fbt:v:a:return")])) == [(0, " <- ", False)]


def test_names_that_only_look_like_entries() -> None:
    events = [fired("p:m:f:carpentry"), fired("p:m:f:method-entry")]
    assert drawn(FlowTracker().annotate(events)) == [(0, "| ", True), (0, " -> ", False)]
