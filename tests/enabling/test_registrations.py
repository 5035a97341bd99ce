"""What the kernel was told of is taken back in order, and the log hears of each part when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.enabling.registrations import Registrations
from probekit.errors import GuestError, JournalError
from probekit.guest.module_refs import ModuleRefs
from probekit.guest.tracepoints import CALL_ENTRY_SIZE, BatchRoutine, TracepointProbe, TracepointServices, call_table
from probekit.guest.trap_registration import TrapServices
from probekit.guest.watchdog import WatchdogServices
from probekit.patch.journal_payloads import Registration

(CANCEL, UNREGISTER, SRCU, PUT, DIE, KSYM, RCU, CALLER, TASKS) = range(0x100, 0xA00, 0x100)
TABLE, WORDS = 0x10000, 0x20000
DOG = Registration("timer", (WORDS, 0x999))
HOOKS = tuple(Registration("tracepoint", (0x1000 * n, 0x77, n)) for n in (1, 2, 3))
MODULES = (Registration("module", (0xA000,)), Registration("module", (0xB000,)))
TRAPS = (Registration("bpf_ksym", (0xC000,)), Registration("die_notifier", (0xD000,)))
ALL = (*MODULES, DOG, *TRAPS, *HOOKS)  # in the order of an enabling


@dataclass
class _Probes:
    """Who is registered at each tracepoint."""

    standing: dict[int, list[tuple[int, int]]]

    def registered(self, read: object, tracepoints: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
        return {tracepoint: self.standing.get(tracepoint, []) for tracepoint in tracepoints}


@dataclass
class _Facts:
    """Of a kernel that has everything."""

    tracepoints: TracepointServices | None
    watchdog: Any = field(default_factory=lambda: WatchdogServices(0, True, 0, CANCEL, 64, 8, 16))
    module_refs: Any = field(default_factory=lambda: ModuleRefs(0, PUT, 0, 0, 0))
    grace: Any = None

    services: Any = field(
        default_factory=lambda: SimpleNamespace(
            traps=TrapServices({"die_notifier": (0, DIE), "bpf_ksym": (0, KSYM)}, RCU),
            synchronize=lambda point: point.call(TASKS),
        )
    )


class _Guest:
    """Memory, log and safe point in one: ``done`` has everything in order."""

    def __init__(self, standing: Sequence[Registration] = HOOKS, stuck: frozenset[int] = frozenset()) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.stuck = stuck
        self.set_up = True
        self.table = b""
        probes: Any = _Probes({at: [(function, data)] for at, function, data in (item.words for item in standing)})
        self.facts = _Facts(TracepointServices(0, UNREGISTER, ((SRCU, 7),), probes))

    def held(self, items: Sequence[Registration]) -> Registrations:
        this: Any = self
        facts: Any = self.facts
        return Registrations(facts, this, this, items)

    def call(self, function: int, *args: int, timeout: float = 0, purpose: str = "") -> int:
        self.done.append((function, *args))
        if function == UNREGISTER:
            return (1 << 64) - 2 if args[0] in self.stuck else 0
        if function == CALLER:
            begin, end = (at - TABLE for at in args[:2])
            for at in range(begin, end, CALL_ENTRY_SIZE):
                if int.from_bytes(self.table[at : at + 8], "little") in self.stuck:
                    return at - begin | 2 << 48
            return end - begin
        return 0

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [bytes([self.set_up]) * size if addr >= WORDS else None for addr, size in ranges]

    def write_many(self, edits: Sequence[tuple[int, bytes]]) -> None:
        ((addr, self.table),) = edits
        assert addr == TABLE

    def registered(self, items: Sequence[Registration]) -> None:
        self.done.append(("told", *items))

    def unregistered(self, items: Sequence[Registration]) -> None:
        self.done.append(("gone", *items))


def test_what_calls_us_first_and_the_rest_behind_the_wait() -> None:
    guest = _Guest()
    held, point = guest.held(ALL), _point(guest)
    held.stop_calls(point)
    hooks = [(UNREGISTER, *item.words) for item in HOOKS]
    assert guest.done == [(CANCEL, WORDS + 24), ("gone", DOG), *hooks, ("gone", *HOOKS)]
    assert held.traced and list(held.items) == [*MODULES, *TRAPS]
    guest.done.clear()
    held.unregister_rest(point)
    assert guest.done == [
        (PUT, 0xB000), ("gone", MODULES[1]), (PUT, 0xA000), ("gone", MODULES[0]),
        (DIE, 0xD000), ("gone", TRAPS[1]), (KSYM, 0xC000), ("gone", TRAPS[0]), (RCU,),
    ]  # fmt: skip
    assert not held.items
    guest.done.clear()
    held.stop_calls(point)
    held.unregister_rest(point)
    assert guest.done == []


def _point(guest: Any) -> Any:
    return guest


def test_readers_of_tracepoints_are_waited_for_when_some_were_unregistered() -> None:
    guest = _Guest()
    held, point = guest.held(ALL), _point(guest)
    held.wait_for_readers(point)
    assert guest.done == [(TASKS,)]
    held.stop_calls(point)
    guest.done.clear()
    held.wait_for_readers(point)
    assert guest.done == [(TASKS,), (SRCU, 7)]


@pytest.mark.parametrize("known", [True, False])
def test_readers_are_waited_for_whose_tracepoints_somebody_else_unregistered(known: bool) -> None:
    guest = _Guest()
    this, facts = _point(guest), _point(guest.facts)  # as Any
    guest.facts.tracepoints = guest.facts.tracepoints if known else None
    Registrations(facts, this, this, (), traced=True).wait_for_readers(this)
    assert guest.done == [(TASKS,), (SRCU, 7)][: 1 + known]


def test_what_the_journal_does_not_take_is_taken_back_all_the_same() -> None:
    """A module is held before the journal is told: the reference must not be lost when it refuses."""
    guest = _Guest()
    held = guest.held(())

    def full(items: Sequence[Registration]) -> None:
        raise JournalError("no space left", path="")

    guest.registered = full  # type: ignore[method-assign]
    with pytest.raises(JournalError):
        held.add(MODULES[:1])
    held.unregister_rest(_point(guest))
    assert guest.done == [(PUT, 0xA000), ("gone", MODULES[0])]


def test_the_log_hears_of_what_is_to_be_first() -> None:
    guest = _Guest()
    held = guest.held(())
    held.add(MODULES)
    assert guest.done == [("told", *MODULES)] and list(held.items) == list(MODULES)


def test_many_tracepoints_in_one_call_and_only_those_that_stand() -> None:
    guest = _Guest(standing=HOOKS[1:])
    guest.facts.grace = object()
    held = guest.held(HOOKS)
    held.routine = BatchRoutine(CALLER, TABLE)
    held.stop_calls(_point(guest))
    assert guest.done == [(CALLER, TABLE, TABLE + 2 * CALL_ENTRY_SIZE, UNREGISTER), ("gone", *HOOKS)]
    assert guest.table == call_table([TracepointProbe(*item.words) for item in HOOKS[1:]])


@pytest.mark.parametrize("routine", [None, BatchRoutine(CALLER, TABLE)])
def test_one_that_the_kernel_keeps_stays_registered(routine: BatchRoutine | None) -> None:
    guest = _Guest(stuck=frozenset((0x2000,)))
    held = guest.held(HOOKS)
    held.routine = routine
    with pytest.raises(GuestError, match="still calls probekit at 1 tracepoints"):
        held.stop_calls(_point(guest))
    assert list(held.items) == list(HOOKS) and not held.traced
    assert not any(what == "gone" for what, *_ in guest.done)


def test_a_timer_that_was_never_set_up_is_not_cancelled() -> None:
    guest = _Guest()
    guest.set_up = False
    guest.held([DOG]).stop_calls(_point(guest))
    assert guest.done == [("gone", DOG)]


@pytest.mark.parametrize(
    ("gone", "item"),
    [
        ("", Registration("telegraph", (1,))),
        ("tracepoints", HOOKS[0]),
        ("module_refs", MODULES[0]),
        ("traps", TRAPS[0]),
    ],
)
def test_nothing_is_forgotten_that_cannot_be_taken_back(gone: str, item: Registration) -> None:
    guest = _Guest()
    setattr(guest.facts, gone or "unused", None)
    if gone == "traps":
        guest.facts.services.traps = TrapServices({"die_notifier": (0, DIE)}, RCU)
    held = guest.held([DOG, item])
    with pytest.raises(GuestError, match=f"cannot unregister a {item.kind}"):
        held.stop_calls(_point(guest))
    assert guest.done == [] and list(held.items) == [DOG, item]
