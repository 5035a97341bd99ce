"""What decides whether a firing does anything, and where it finds its data."""

from __future__ import annotations

import pytest
import unicorn

from probekit.buffers.layout import HeaderWord
from probekit.errors import UnsupportedError
from probekit.guest.offsets import KernelServices
from probekit.isa.decode import decode_run
from tests.codegen import compared, emulated_kernel
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.compared import Compared, compare
from tests.codegen.emulated_kernel import GS_BASE, STACK_TOP
from tests.codegen.machine import Machine

EVERYTHING = """
int64_t x;
fbt::: { x++; @ = count(); @k[arg0] = sum(1); @q = quantize(arg0); trace(arg0); }
fbt::: /arg1 == 5/ { trace(10 / arg2); }
"""


def test_a_firing_inside_a_firing_is_a_counted_drop_and_nothing_else() -> None:
    guest = Machine(EVERYTHING)
    guest.fire(rdi=1, rsi=5)
    guest.drain()
    guest.set_word(HeaderWord.GUARD, 1)
    before = guest.memory()
    for n in range(3):
        assert guest.fire(rdi=1, rsi=5).fault == 0
        assert guest.word(HeaderWord.RECURSION_DROPS) == n + 1
    guest.set_word(HeaderWord.RECURSION_DROPS, 0)
    assert guest.memory() == before
    guest.set_word(HeaderWord.GUARD, 0)
    guest.fire(rdi=1, rsi=5)
    assert len(guest.drain()) == 2


def test_the_activity_word_silences() -> None:
    guest = Machine(EVERYTHING)
    guest.set_activity(1)
    before = guest.memory()
    guest.fire(rdi=1, rsi=5)
    assert guest.memory() == before
    guest.set_activity(0)
    guest.fire(rdi=1)
    assert guest.globals_() == {0: 1}


def test_exit_ends_the_firing_and_every_later_one() -> None:
    both = Compared(
        "int x; fbt::: { x++; } fbt::: /x == 3/ { trace(x); exit(arg0); } fbt::: { @[arg0] = count(); trace(7); }",
        functions=(Function(), Function()),
    )
    for n in range(6):
        both.fire(n, function=n & 1)
    both.check()
    assert both.silent
    assert both.machine.globals_() == {0: 3}
    assert both.machine.table(0) == {(0,): (1,), (1,): (1,)}


def test_exit_that_is_not_reached_silences_nothing() -> None:
    """Behind a predicate, in a branch not taken, aborted by a fault, or dropped for want of room."""
    both = compare(
        "fbt::: /arg0 == 1/ { exit(0); } fbt::: { if (arg0 == 2) { exit(1); } else { trace(2); } }", (0,), (3,)
    )
    assert not both.silent
    both = compare("fbt::: { exit(10 / arg0); }", (0,), (0,), (2,), (3,))
    assert both.silent
    guest = Machine("fbt::: { exit(0); }", bufsize=0)
    guest.fire()
    assert (guest.activity, guest.word(HeaderWord.PRINCIPAL_DROPS)) == (0, 1)


def test_nothing_is_counted_after_exit() -> None:
    """An increment in the stub does not look at the activity word, so beside exit() there is none."""
    text = "fbt::f0: { @ = count(); } fbt::f1: { exit(0); }"
    functions = (Function(clauses=(0,)), Function(clauses=(1,)))
    guest = Machine(text, functions)
    assert guest.inline == (None, None)
    guest.fire(0)
    guest.fire(1)
    guest.fire(0)
    assert guest.table(0) == {(): (1,)}
    assert Machine(text, functions[:1]).inline == ((0,),)


@pytest.mark.parametrize(
    "text",
    [
        "fbt::: { @ = count(); }",
        "fbt::: { @[probefunc] = count(); }",
        "fbt::: { @a = count(); } fbt::: { @b = count(); }",
    ],
)
def test_counts_alone_are_increments(text: str) -> None:
    """4 or 5 instructions in the stub, no thunk, and every site its own word."""
    functions = (Function(), Function(NOP5 + RET, "return"))
    guest = Machine(text, functions)
    assert None not in guest.inline and guest.image.thunks == {} and guest.image.code == b""
    for function, times in ((0, 3), (1, 2)):
        for _ in range(times):
            fired = guest.fire(function, count=True)
            assert (fired.fault, fired.bad) == (0, ())
            assert fired.steps <= 6
    expected = {("f0",): (3,), ("f1",): (2,)} if "probefunc" in text else {(): (5,)}
    for plan in guest.program.aggregations:
        assert guest.table(plan.index) == expected


@pytest.mark.parametrize(
    "text",
    [
        "fbt::: /arg0/ { @ = count(); }",
        "fbt::: { @ = sum(1); }",
        "fbt::: { @[execname] = count(); }",
        "fbt::: { @ = count(); @b = count(); }",
        "fbt::: { @ = count(); trace(1); }",
    ],
)
def test_others_are_thunks(text: str) -> None:
    assert Machine(text).inline == (None,)


SLOTS = (0x2E0C0, 0x7FFFF000, 0x80000000, 0x6070_1122_3340, -0x2000, -(1 << 31), -(1 << 31) - 0x1000, -(1 << 40))


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("preemptible", [False, True])
def test_every_form_of_the_slot(slot: int, preemptible: bool) -> None:
    options = {"slot": slot, "preemptible": preemptible, "gs_base": GS_BASE}
    compare("fbt::: { @[arg0] = sum(arg1); trace(pid); }", (1, 2), (1, 3), **options)
    guest = Machine("fbt::: { @ = count(); }", **options)
    assert guest.inline != (None,)
    for _ in range(3):
        fired = guest.fire()
        assert (fired.fault, fired.bad) == (0, ())
    assert guest.table(0) == {(): (3,)}


def test_shared_words_are_locked_where_tasks_are_preempted() -> None:
    """In the stub, and in a thunk that counts in the same words: a task may have moved to another CPU meanwhile."""
    text = """fbt::f0: { @[probefunc] = count(); }
        fbt::f1: { @[probefunc] = count(); trace(1); } fbt::f1: { @k[arg0] = count(); }"""
    functions = (Function(clauses=(0,)), Function(clauses=(1, 2)))
    for preemptible, locked in ((True, 2), (False, 0)):
        guest = Machine(text, functions, preemptible=preemptible)
        assert guest.inline == ((0,), None)
        found = [i for i in decode_run(guest.code, 0xFFFFFFFFC0000000) if i.raw.startswith(b"\xf0")]
        assert len(found) == locked
        guest.fire(0)
        guest.fire(1)
        assert guest.table(0) == {("f0",): (1,), ("f1",): (1,)}


def test_arguments_on_the_stack() -> None:
    guest = Machine("fbt::: { " + " ".join(f"trace(arg{n});" for n in range(10)) + " }")
    for n in range(4):
        guest.write(STACK_TOP + 8 + 8 * n, (100 + n).to_bytes(8, "little"))
    guest.fire(rdi=1, rsi=2, rdx=3, rcx=4, r8=5, r9=6)
    (record,) = guest.drain()
    assert [int.from_bytes(record.payload[8 * n : 8 * n + 8], "little") for n in range(10)] == [
        *range(1, 7),
        *range(100, 104),
    ]


def test_arguments_of_a_return() -> None:
    """arg0: the exit's offset; arg1: what is returned; the rest is 0."""
    code = NOP5 + "4885ff7505" + RET + RET  # test rdi, rdi; jnz second ret
    guest = Machine("fbt::: { trace(arg0); trace(arg1); trace(arg2); trace(arg7); }", [Function(code, "return")])
    assert [site.offset for site in guest.sites] == [10, 15]
    for rdi, offset in ((0, 10), (1, 15)):
        guest.fire(rdi=rdi, rax=-3, rdx=9)
        (record,) = guest.drain()
        words = [int.from_bytes(record.payload[n : n + 8], "little", signed=True) for n in range(0, 32, 8)]
        assert words == [offset, -3, 0, 0]


def test_names_and_numbers_of_the_probe() -> None:
    text = 'fbt::: { printf("%s %s %s %s %d %d", probeprov, probemod, probefunc, probename, id, epid); }'
    compare(text, (1,))
    both = Compared(
        """fbt::: { trace(epid); }
        fbt::: { trace(id); trace(arg0 ? probefunc : "-"); @[probename == "entry", epid] = count(); }""",
        functions=(Function(), Function(NOP5 + RET, "return"), Function()),
    )
    for n in range(6):
        both.fire(n & 1, function=n % 3)
    both.check()


def test_facts_of_the_task() -> None:
    for pid, tid, cpu, comm in ((1, 1, 0, b"init"), (-1, -2, 255, b""), (1 << 30, 7, 1, b"fifteen letters")):
        compare(
            'fbt::: { printf("%d %d %d %s", pid, tid, cpu, execname); @[pid, tid, cpu, execname] = count(); }',
            (1,),
            (2,),
            pid=pid,
            tid=tid,
            cpu=cpu,
            comm=comm,
        )


def test_time_on_a_cpu_and_errors() -> None:
    """``errno`` is what a return returns, when that is an error; a pointer, a count or an entry has none."""
    both = Compared(
        "fbt::: { trace(vtimestamp); trace(errno); @[errno] = count(); trace(errno * 2 - arg0); }",
        functions=(Function(), Function(NOP5 + RET, "return")),
    )
    for returned in (0, 1, -1, -2, -14, -4095, -4096, 0xFFFFFFF2, 0xFFFFFFFF_00000000, 1 << 63, -(1 << 31)):
        both.fire(5, function=0, returned=returned)
        both.fire(5, function=1, returned=returned)
    both.check()


def test_time_on_a_cpu_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt may have taken longer than has passed since the run queue's clock was set: the kernel charges
    it to what comes later."""
    monkeypatch.setattr(emulated_kernel, "INTERRUPTS", (1_000_100 + 101, 1_000_100))
    monkeypatch.setattr(compared, "RUN_NS", 4_000_700 - 4_000_000 + 300)
    both = Compared("fbt::: { trace(vtimestamp); }")
    both.fire(5, function=0)
    both.check()


@pytest.mark.parametrize("field", ["clock", "task_clock", "since", "total"])
def test_time_on_a_cpu_while_another_cpu_brings_it_up_to_date(field: str) -> None:
    """At whichever of the words it comes in between, what is read is all old or all new."""
    guest = Machine("fbt::: { trace(vtimestamp); }")
    places = {
        "clock": guest.gs_base + emulated_kernel.RUN.clock,
        "task_clock": guest.gs_base + emulated_kernel.RUN.task_clock,
        "since": emulated_kernel.TASK + emulated_kernel.RUN.since,
        "total": emulated_kernel.TASK + emulated_kernel.RUN.total,
    }
    old = {name: emulated_kernel.RUN_WORDS[name] for name in places}
    later = 60  # of the 100 ns that have passed, 70 were an interrupt's: all of it is still owed
    new = {"clock": old["clock"] + later, "task_clock": old["task_clock"], "since": old["task_clock"]}
    new["total"] = old["total"] + new["since"] - old["since"]
    known = guest.gs_base + emulated_kernel.RUN.interrupts[1]
    written: list[int] = []

    def bring(uc: unicorn.Uc, _access: int, _addr: int, _size: int, _value: int, _user: object) -> None:
        if not written:
            written.append(1)
            for name, place in places.items():
                uc.mem_write(place, new[name].to_bytes(8, "little"))
            uc.mem_write(known, (emulated_kernel.INTERRUPTS[1] + later).to_bytes(8, "little"))

    guest.on_read(places[field], bring)
    assert guest.fire().bad == ()
    (record,) = guest.drain()
    assert written and int.from_bytes(record.payload[:8], "little") == emulated_kernel.RUN_NS


def test_time_on_a_cpu_that_the_scheduler_charges_to_the_next_task() -> None:
    """A thread's time stays where it was until its account has come so far again; another thread has its own."""
    guest = Machine("fbt::: { trace(vtimestamp); }")
    since = emulated_kernel.TASK + emulated_kernel.RUN.since

    def read() -> int:
        assert guest.fire().bad == ()
        (record,) = guest.drain()
        return int.from_bytes(record.payload[:8], "little")

    assert read() == emulated_kernel.RUN_NS
    guest.write(since, (emulated_kernel.RUN_WORDS["since"] + 100).to_bytes(8, "little"))
    assert read() == emulated_kernel.RUN_NS
    guest.write(since, (emulated_kernel.RUN_WORDS["since"] - 5).to_bytes(8, "little"))
    assert read() == emulated_kernel.RUN_NS + 5
    guest.write(since, (emulated_kernel.RUN_WORDS["since"] + 100).to_bytes(8, "little"))
    guest.write(emulated_kernel.TASK + (emulated_kernel.OFFSETS.start or 0), (0x78).to_bytes(8, "little"))
    assert read() == emulated_kernel.RUN_NS - 100


def test_time_on_a_cpu_inside_of_the_scheduler() -> None:
    """Whoever has the run queue's lock, with interrupts off, gets an answer too."""
    guest = Machine("fbt::: { trace(vtimestamp); }")
    guest.write(guest.gs_base + emulated_kernel.RUN.lock, (1).to_bytes(4, "little"))
    assert guest.fire(flags=2).bad == ()
    (record,) = guest.drain()
    assert int.from_bytes(record.payload[:8], "little") == emulated_kernel.RUN_NS


def test_no_types_of_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "kernel", property(lambda _: KernelServices()))
    with pytest.raises(UnsupportedError) as caught:
        Machine("fbt::: { trace(vtimestamp); }")
    assert caught.value.feature == "vtimestamp"


def test_short_constants_beside_a_task_s_name() -> None:
    """As long as a name in memory: what lies behind a short constant is not recorded with it."""
    text = """fbt::: { trace("b"); trace("c"); trace(arg0 ? "a" : execname); }
        fbt::: { @[arg0 ? "a" : execname] = count(); trace(arg0 ? execname : "fifteen letters"); }"""
    compare(text, (0,), (1,), (0,))


@pytest.mark.parametrize("name", ["pid", "tid", "cpu", "execname"])
def test_no_types_no_task(name: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        Machine(f"fbt::: {{ trace({name}); }}", task=None)
    assert caught.value.feature == name
    assert Machine(f"fbt::: {{ {name}; trace(1); }}", task=None).fire().fault == 0  # nobody asks for it


def test_no_clock() -> None:
    with pytest.raises(UnsupportedError) as caught:
        Machine("fbt::: { @ = max(timestamp); }", clock=None)
    assert caught.value.feature == "timestamp"


def test_too_much_stack() -> None:
    chosen = ", ".join(f"arg{n % 6} ? {n} : -{n}" for n in range(300))
    with pytest.raises(UnsupportedError) as caught:
        Machine(f"fbt::: {{ @[{chosen}] = count(); }}")
    assert caught.value.feature == "stack"


def test_too_much_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probekit.codegen.image.MAX_IMAGE", 2000)
    Machine("fbt::: { trace(arg0); }")
    with pytest.raises(UnsupportedError) as caught:
        Machine("fbt::: { " + "trace(arg0 * 3); " * 200 + "}")
    assert caught.value.feature == "size" and "more than the 2,000" in str(caught.value)


def test_stack_in_use_is_bounded() -> None:
    """Nothing below 2 KiB and the saved registers is touched, whatever the script."""
    keys = ", ".join(f'arg{n} ? probefunc : "{n}"' for n in range(7))
    guest = Machine(f"fbt::: {{ @[{keys}] = count(); }}", aggsize=1 << 16)
    low = STACK_TOP - 2400
    guest.write(low - 0x800, b"\xa5" * 0x800)
    assert guest.fire(rdi=1).fault == 0
    assert guest.read(low - 0x800, 0x800) == b"\xa5" * 0x800
    assert len(guest.table(0)) == 1


def test_timestamps_by_the_shared_counter() -> None:
    """Nanoseconds of the counter that the record's own time stamp is read from; they only grow."""
    guest = Machine("fbt::: { trace(timestamp); trace(timestamp); }", tsc_khz=3_000_000, tsc_shared=True)
    last = 0
    for _ in range(5):
        assert guest.fire().fault == 0
        (record,) = guest.drain()
        first, second = (int.from_bytes(record.payload[at : at + 8], "little") for at in (0, 8))
        assert last <= record.timestamp // 3 <= first + 1 and first <= second
        last = second
