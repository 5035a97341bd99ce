"""Variables of threads: whose they are, when they end, and what finds no room."""

from __future__ import annotations

from probekit.buffers.layout import HeaderWord
from tests.codegen.emulated_kernel import (
    TASK,
)
from tests.codegen.host_variables import be
from tests.codegen.machine import Machine


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
