"""Elements of arrays: they come and go, and one that another CPU holds is given up and counted."""

from __future__ import annotations

from probekit.buffers.layout import HeaderWord
from tests.codegen.compared import compare
from tests.codegen.emulated_kernel import (
    DATA,
)
from tests.codegen.machine import Machine


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


def test_members_of_elements_are_as_on_the_host() -> None:
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
