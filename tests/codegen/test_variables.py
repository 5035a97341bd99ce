"""Variables of threads and elements of arrays: whose they are, when they are freed, what is counted."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import HeaderWord
from probekit.enabling.guest_engine.variables import GuestVariables
from tests.codegen.compared import Compared, compare
from tests.codegen.emulated_kernel import DATA, GS_BASE, OFFSETS, PAGE, TASK
from tests.codegen.machine import Machine
from tests.codegen.scripts import ints


class _Memory:
    """The machine's memory as the host reaches it."""

    live = True

    def __init__(self, guest: Machine) -> None:
        self._guest = guest

    def read(self, addr: int, size: int) -> bytes:
        return self._guest.read(addr, size)

    def write(self, addr: int, data: bytes) -> None:
        self._guest.write(addr, data)


def host(guest: Machine) -> GuestVariables:
    """The host's side of a machine's variables."""
    memory = _Memory(guest)
    return GuestVariables(guest.program, guest.storage, base=DATA, memory=lambda: memory, no_clause_running=nullcontext)


def number(guest: Machine, name: str) -> int:
    return next(v.index for v in guest.program.variables if v.name == name)


def be(guest: Machine, task: int, start: int = 1) -> None:
    """Another task runs."""
    assert TASK <= task < TASK + PAGE
    guest.write(GS_BASE + OFFSETS.current, task.to_bytes(8, "little"))
    guest.write(task + (OFFSETS.start or 0), start.to_bytes(8, "little"))


def test_each_thread_has_its_own() -> None:
    guest = Machine(
        'fbt::: /arg0/ { self->n = arg0; self->s = arg1 ? "one" : "two"; } fbt::: { @[self->n, self->s] = count(); }'
    )
    be(guest, TASK, 1)
    guest.fire(rdi=5, rsi=1)
    be(guest, TASK + 0x10, 1)
    guest.fire(rdi=0)
    guest.fire(rdi=6, rsi=0)
    be(guest, TASK, 1)
    guest.fire(rdi=0)
    assert guest.table(0) == {(5, b"one"): (2,), (0, b""): (1,), (6, b"two"): (1,)}


def test_a_new_thread_at_an_old_address_starts_with_nothing() -> None:
    guest = Machine("fbt::: /arg0/ { self->n = arg0; self->a[1] = arg0; } fbt::: { @[self->n, self->a[1]] = count(); }")
    be(guest, TASK, 1)
    guest.fire(rdi=5)
    be(guest, TASK, 2)
    guest.fire(rdi=0)
    assert guest.table(0) == {(5, 5): (1,), (0, 0): (1,)}
    assert guest.word(HeaderWord.DYNAMIC_DROPS) == 0


def test_threads_that_find_no_room_are_counted() -> None:
    guest = Machine("fbt::: { self->n = arg0; @[self->n] = count(); }", dynvarsize=8 * 24)
    assert guest.storage.threads is not None and guest.storage.threads.capacity == 8
    for n in range(12):
        be(guest, TASK + 8 * n, 1)
        guest.fire(rdi=n + 1)
    assert guest.word(HeaderWord.DYNAMIC_DROPS) == 4
    assert guest.table(0)[(0,)] == (4,)


def test_a_zero_needs_no_room() -> None:
    guest = Machine('fbt::: { self->n = 0; self->s = ""; a[arg0] = 0; g[arg0] = ""; trace(a[arg0]); }', dynvarsize=1024)
    for n in range(50):
        be(guest, TASK + 8 * n, 1)
        guest.fire(rdi=n)
    assert guest.word(HeaderWord.DYNAMIC_DROPS) == 0


def test_elements_come_and_go() -> None:
    guest = Machine("fbt::: { a[arg0] = arg1; @[a[arg0]] = count(); }", dynvarsize=2048)
    table = guest.storage.dynamic
    assert table is not None
    for round_ in range(20):
        for n in range(table.capacity):
            guest.fire(rdi=n * 77, rsi=round_ + 1)
        for n in range(table.capacity):
            guest.fire(rdi=n * 77, rsi=0)
    assert guest.word(HeaderWord.DYNAMIC_DROPS) == 0, "what is freed is used again"
    for n in range(table.capacity + 7):
        guest.fire(rdi=n, rsi=1)
    assert guest.word(HeaderWord.DYNAMIC_DROPS) == 7


def test_an_element_that_is_held_is_given_up_and_counted() -> None:
    guest = Machine("fbt::: { a[arg0] = arg1; trace(a[arg0]); }", dynvarsize=200)
    table = guest.storage.dynamic
    assert table is not None
    guest.fire(rdi=1, rsi=9)
    for bucket in range(table.buckets):
        guest.write(DATA + table.buckets_offset + 8 * bucket, b"\1\0\0\0")
    done = guest.fire(rdi=1, rsi=5)
    assert (done.fault, done.bad) == (0, ())
    assert guest.word(HeaderWord.BUSY_DROPS) == 2
    assert [r.payload[0] for r in guest.drain()] == [9, 0]
    for bucket in range(table.buckets):
        guest.write(DATA + table.buckets_offset + 8 * bucket, b"\0\0\0\0")
    guest.fire(rdi=1, rsi=6)
    assert [r.payload[0] for r in guest.drain()] == [6]


def test_objects_of_elements() -> None:
    compare(
        """struct p { int a; char b[5]; }; struct p t[int]; struct p o; self struct p s; this struct p l;
        fbt::: {
            t[arg0].a = arg1; t[arg0].b[2] = arg2; o = t[arg0]; this->l = o; self->s = this->l;
            trace(t[arg0].a); trace(o.b[2]); trace(this->l.a); trace(self->s.b[2]); trace(t[arg0 + 1].a);
        }""",
        (1, 2, 3),
        (1, -2, 65),
        (5, 7, 8),
        (0, 0, 0),
    )


def test_the_host_sees_the_same_variables() -> None:
    guest = Machine("""
        string s; int64_t a[int64_t, string]; string g[int64_t];
        struct p { int x; int y; }; struct p o; struct p t[int64_t];
        fbt::: {
            s = strjoin(s, "x"); a[arg0, s] = arg1; g[arg0] = s; o.y = arg1; t[arg0].y = arg1 + 1;
            trace(a[7, "host"]); trace(g[99]); trace(o.x); trace(t[3].x);
        }""")
    there = host(guest)
    s, a, g, o, t = (number(guest, name) for name in "sagot")
    there.store(s, b"be")
    assert there.store_element(a, (7, b"host"), -5) and there.store_element(g, (99,), b"from here")
    assert there.write(there.address(o), b"\x0b\0\0\0") and there.write(
        there.element_address(t, (3,), create=True), b"\x0c"
    )
    guest.fire(rdi=3, rsi=44)
    (record,) = guest.drain()
    assert int.from_bytes(record.payload[:8], "little", signed=True) == -5
    assert record.payload[8:18] == b"from here\0"
    assert there.load(s) == b"bex" and there.load_element(g, (3,)) == b"bex"
    assert there.load_element(a, (3, b"bex")) == 44 and there.load_element(a, (3, b"be")) == 0
    assert there.read(there.address(o), 8) == b"\x0b\0\0\0\x2c\0\0\0"
    assert there.read(there.element_address(t, (3,), create=False), 8) == b"\x0c\0\0\0\x2d\0\0\0"
    assert there.element_address(t, (4,), create=False) == 0
    assert not there.write(DATA, b"\1") and not there.write(DATA + guest.storage.globals_[s].offset, b"\1")


_steps = st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.sampled_from((0, 0, 1, 5, -1))), max_size=60)


@settings(max_examples=25, deadline=None)
@given(_steps)
def test_host_and_guest_take_turns(steps: list[tuple[bool, int, int]]) -> None:
    guest = Machine("fbt::: { a[arg0] = arg1; trace(1); }", dynvarsize=700)
    there, model = host(guest), dict[int, int]()
    a, refused = number(guest, "a"), 0
    lost = 0
    for by_host, key, value in steps:
        if by_host:
            refused += not there.store_element(a, (key,), value)
        else:
            guest.fire(rdi=key, rsi=value)
            guest.drain()
        full = len(model) >= (guest.storage.dynamic.capacity if guest.storage.dynamic else 0)
        if not value:
            model.pop(key, None)
        elif key in model or not full:
            model[key] = value
        else:
            lost += 1
    assert refused + guest.word(HeaderWord.DYNAMIC_DROPS) == lost
    assert {key: there.load_element(a, (key,)) for key in range(13)} == {key: model.get(key, 0) for key in range(13)}


@pytest.mark.parametrize("size", [1, 2, 8, 9, 256])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(ints, ints, ints), min_size=1, max_size=4))
def test_strings_of_any_size(size: int, firings: list[tuple[int, ...]]) -> None:
    """``strsize`` cuts strings and keys, and nothing is written behind them."""
    both = Compared(
        """string s; self string t; string g[string];
        fbt::: {
            s = arg0 ? strjoin(s, lltostr(arg1)) : basename("/usr/lib/x/"); self->t = strjoin(execname, s);
            g[s] = dirname(lltostr(arg2, 16)); g["k"] = s; trace(g[s]); trace(self->t); trace(strlen(s));
            @[s, self->t, execname] = count();
        }""",
        strsize=size,
        dynvarsize=1 << 14,
        aggsize=1 << 15,
    )
    for args in firings:
        both.fire(*args)
    both.check()
