"""Variables as the host reads and writes them: they are those that the guest's clauses have."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import HeaderWord
from tests.codegen.emulated_kernel import (
    DATA,
)
from tests.codegen.host_variables import host, number
from tests.codegen.machine import Machine


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
