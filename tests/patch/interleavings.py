"""Every interleaving of a writer that changes an instruction and processors that execute it.

The writer does its actions one after another; the writes of one stage come in any order, byte by byte. A processor
may execute the instruction at any time. What it fetches is the worst that a processor may fetch: for each byte any
value that the byte has had since the processor serialised last, each byte for itself. It serialises when it likes,
but the writer waits for all of them.

    INT3 fetched first            the processor is in the handler until it looks its bypass up; none there: a failure
    a later byte has changed      a failure: processors do what they please then, even where one byte alone changed
    since it serialised           (Intel's erratum "Unsynchronized Cross-Modifying Code Operations Can Cause Unexpected
                                  Instruction Execution Results", which seed 001 quotes; INT3 as first byte is exempt)
    all old, or all new           executed
    anything else                 a failure: bytes that never stood in memory together, or a part of the INT3

When the writer is through, memory must hold the new bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from probekit.patch.crossmodify import INT3, Stage
from probekit.patch.edits import Edit

__all__ = ("Action", "Outcome", "explore", "program")


@dataclass(frozen=True)
class Action:
    """One step of the writer. ``writes``: (byte's index, value), in any order."""

    kind: Literal["write", "serialise", "leave", "bypass on", "bypass off"]
    writes: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """``failure``: what went wrong, or nothing. ``seen``: what processors did. ``states``: how many there were."""

    failure: str
    seen: frozenset[str]
    states: int


def program(edit: Edit, plan: Sequence[Stage]) -> tuple[Action, ...]:
    """The writer's actions for one window of a plan, between the bypass being made and unmade."""
    actions = [Action("bypass on")]
    for stage in plan:
        inside = [
            (addr + at - edit.addr, value)
            for addr, data in stage.writes
            for at, value in enumerate(data)
            if edit.addr <= addr + at < edit.addr + len(edit.old)
        ]
        if inside:
            actions.append(Action("write", frozenset(inside)))
        actions += [Action(wait) for wait in stage.waits]
    return (*actions, Action("bypass off"))


# One processor: is it in the handler, has it serialised for the writer's present wait, what it may fetch of each byte.
_Cpu = tuple[bool, bool, tuple[frozenset[int], ...]]
# The writer's place, what is left of its writes there, memory, is the bypass there, the processors.
_State = tuple[int, frozenset[tuple[int, int]], tuple[int, ...], bool, tuple[_Cpu, ...]]


def explore(edit: Edit, actions: Sequence[Action], cpus: int = 2) -> Outcome:
    """All states that can be reached; ends at the first failure."""
    fresh: _Cpu = (False, False, tuple(frozenset((value,)) for value in edit.old))
    first: _State = (0, actions[0].writes, tuple(edit.old), False, (fresh,) * cpus)
    known, todo, seen = {first}, [first], set[str]()
    while todo:
        state = todo.pop()
        for what, following in _steps(edit, actions, state):
            if following is None:
                return Outcome(f"{what}, at step {state[0]} of the writer", frozenset(seen), len(known))
            seen.add(what)
            if following not in known:
                known.add(following)
                todo.append(following)
    return Outcome("", frozenset(seen), len(known))


def _steps(edit: Edit, actions: Sequence[Action], state: _State) -> Iterator[tuple[str, _State | None]]:
    yield from _writer(actions, state)
    place, left, memory, bypass, cpus = state
    if place == len(actions) and bytes(memory) != edit.new:
        yield f"memory holds {bytes(memory).hex(' ')}", None
    for number, cpu in enumerate(cpus):
        for what, changed in _processor(edit, cpu, memory, bypass):
            if changed is None:
                yield what, None
            else:
                # Processors are alike: their order does not matter.
                others = (*cpus[:number], changed, *cpus[number + 1 :])
                yield what, (place, left, memory, bypass, tuple(sorted(others, key=repr)))


def _writer(actions: Sequence[Action], state: _State) -> Iterator[tuple[str, _State | None]]:
    place, left, memory, bypass, cpus = state
    if place == len(actions):
        return
    kind = actions[place].kind
    if kind == "write":
        for index, value in left:
            after = (*memory[:index], value, *memory[index + 1 :])
            wider = tuple((inside, done, _also(views, index, value)) for inside, done, views in cpus)
            remaining = left - {(index, value)}
            yield "write", _advance(actions, place, remaining, after, bypass, wider)
        return
    if kind == "serialise" and not all(done for _, done, _ in cpus):
        return
    if kind == "leave" and any(inside for inside, _, _ in cpus):
        return
    bypass = {"bypass on": True, "bypass off": False}.get(kind, bypass)
    yield kind, _advance(actions, place, frozenset(), memory, bypass, cpus)


def _advance(
    actions: Sequence[Action],
    place: int,
    left: frozenset[tuple[int, int]],
    memory: tuple[int, ...],
    bypass: bool,
    cpus: tuple[_Cpu, ...],
) -> _State:
    """The next action, when nothing is left of this one; what was serialised for this one does not count for it."""
    if not left:
        place += 1
        left = actions[place].writes if place < len(actions) else frozenset()
    cpus = tuple((inside, False, views) for inside, _, views in cpus)
    return place, left, memory, bypass, tuple(sorted(cpus, key=repr))


def _also(views: tuple[frozenset[int], ...], index: int, value: int) -> tuple[frozenset[int], ...]:
    return (*views[:index], views[index] | {value}, *views[index + 1 :])


def _processor(edit: Edit, cpu: _Cpu, memory: tuple[int, ...], bypass: bool) -> Iterator[tuple[str, _Cpu | None]]:
    inside, done, views = cpu
    yield "serialises", (inside, True, tuple(frozenset((value,)) for value in memory))
    if inside:
        yield ("is bypassed", (False, done, views)) if bypass else ("meets an INT3 that nobody knows", None)
        return
    for fetched in product(*views):
        if fetched[0] == INT3[0]:
            yield "traps", (True, done, views)
        elif any(len(view) > 1 for view in views[1:]):
            yield "executes what changes under it", None
        elif bytes(fetched) == edit.old:
            yield "executes the old", cpu
        elif bytes(fetched) == edit.new:
            yield "executes the new", cpu
        else:
            yield f"executes {bytes(fetched).hex(' ')}", None
