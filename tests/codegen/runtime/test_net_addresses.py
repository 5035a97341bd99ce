"""Network addresses as text, held against this machine's inet_ntop(3) and the host's evaluator."""

from __future__ import annotations

import socket
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import FaultKind
from tests.codegen.compared import compare
from tests.codegen.emulated_kernel import KMEM
from tests.codegen.machine import Machine

_words = st.sampled_from((0, 0, 0, 0, 1, 0xFFFF, 0xA0, 0xABC, 0x1234))
_sixes = st.lists(_words, min_size=8, max_size=8).map(lambda words: b"".join(w.to_bytes(2, "big") for w in words))


@lru_cache
def machine(call: str) -> Machine:
    return Machine(f"fbt::: {{ trace({call}); }}")


def text(call: str, data: bytes) -> str:
    """What ``call`` makes of bytes in kernel memory."""
    guest = machine(call)
    guest.write(KMEM, data)
    fired = guest.fire(rdi=KMEM)
    assert fired.fault == 0 and fired.bad == ()
    (record,) = guest.drain()
    assert record.fault == 0
    return record.payload.split(b"\0", 1)[0].decode()


@settings(max_examples=300, deadline=None)
@given(st.one_of(_sixes, st.binary(min_size=16, max_size=16)))
def test_any_ipv6_address_is_written_as_inet_ntop_writes_it(data: bytes) -> None:
    assert text("inet_ntop(10, (void *)arg0)", data) == socket.inet_ntop(socket.AF_INET6, data)


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=4, max_size=4))
def test_any_ipv4_address_is_written_as_inet_ntoa_writes_it(data: bytes) -> None:
    assert text("inet_ntop(2, (void *)arg0)", data) == socket.inet_ntoa(data)


def test_usual_ipv6_addresses_are_written_as_inet_ntop_writes_them() -> None:
    six = ("::", "::1", "1::", "::1.2.3.4", "::ffff:10.100.0.255", "1:0:0:2::", "1:2:3:4:5:6:7:8", "a:0:b:0:c:0:d:0")
    for name in six:
        data = socket.inet_pton(socket.AF_INET6, name)
        assert text("inet_ntop(26, (void *)arg0)", data) == socket.inet_ntop(socket.AF_INET6, data)


def test_link_addresses_are_written_in_hexadecimal() -> None:
    data = bytes(range(0x90, 0xB0))
    assert text("link_ntop(1, (void *)arg0)", data) == data[:6].hex(":")
    assert text("link_ntop(32, (void *)arg0)", data) == data[:20].hex(":")


@pytest.mark.parametrize("call", ["inet_ntop(arg1, (void *)arg0)", "link_ntop(arg1, (void *)arg0)"])
def test_what_cannot_be_is_a_fault(call: str) -> None:
    both = compare(
        f"fbt::: {{ trace({call}); }}",
        *((KMEM, kind) for kind in (1, 2, 10, 26, 32, 0, -1, 1 << 40)),
        *((KMEM + 0x1FFF, kind) for kind in (1, 2, 10)),
        (0, 2),
        (16, 10),
    )
    assert both.faults > 5
    guest = Machine(f"fbt::: {{ trace({call}); }}")
    guest.fire(rdi=KMEM, rsi=7)
    assert [r.fault for r in guest.drain()] == [FaultKind.ILLOP]
