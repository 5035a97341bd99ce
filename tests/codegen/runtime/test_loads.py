"""Loads from memory that may not be mapped: kernel memory, user memory, and nothing else."""

from __future__ import annotations

import pytest

from probekit.buffers.layout import FaultKind, HeaderWord
from tests.codegen.emulated_kernel import (
    KMEM,
    KMEM_BYTES,
    KMEM_SIZE,
    USER,
    USER_SIZE,
)
from tests.codegen.machine import Machine
from tests.codegen.records import fault, fired

EDGES = (
    *(0, 1, 0x1000, (1 << 47) - 1, 1 << 47, 0x8000000000000000, 0xFFFF7FFFFFFFFFFF, 0xFFFF800000000000),
    *(0xFFFFFFFFFF5FFFF8, 0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, 0xFFFFFFFFFFFFFFF8, 0xFFFFFFFFFFFFFFFF),
)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("at", EDGES)
def test_no_address_outside_kernel_memory_is_touched(at: int, size: int) -> None:
    """The machine's load takes what is mapped; these are refused before it, or by it."""
    kind = {1: "char", 2: "short", 4: "int", 8: "long"}[size]
    record = fired(Machine(f"fbt::: {{ trace(1); trace(*({kind} *)arg0); }}"), rdi=at)
    assert fault(record)[:3] == (FaultKind.BADADDR, at, 1)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_loads_up_to_the_last_byte(size: int) -> None:
    kind = {1: "char", 2: "short", 4: "int", 8: "long"}[size]
    guest = Machine(f"fbt::: {{ trace(*({kind} *)arg0); }}")
    last = KMEM_SIZE - size
    assert fired(guest, rdi=KMEM + last).payload[:size] == KMEM_BYTES[last:]
    for beyond in range(1, size + 1):
        assert fault(fired(guest, rdi=KMEM + last + beyond))[:2] == (FaultKind.BADADDR, KMEM + last + beyond)


def test_a_million_faults_are_counted_and_do_no_harm() -> None:
    guest = Machine("fbt::: { @s = sum(*(int *)arg0); } fbt::: { @ = count(); }", bufsize=256)
    for _ in range(300):
        assert guest.fire(rdi=8).fault == 0
    assert guest.word(HeaderWord.FAULTS) == 300
    assert guest.word(HeaderWord.PRINCIPAL_DROPS) + len(guest.drain()) == 300
    assert guest.table(1) == {(): (300,)}, "a fault ends its own clause, no other"


def test_strings_stop_at_their_end_and_fault_past_memory() -> None:
    guest = Machine("fbt::: { trace(stringof((char *)arg0)); }")
    text = KMEM_BYTES[1:256].split(b"\0")[0]
    assert fired(guest, rdi=KMEM + 1).payload == text[:255].ljust(256, b"\0")
    assert fault(fired(guest, rdi=KMEM + KMEM_SIZE - 20))[:2] == (FaultKind.BADADDR, KMEM + KMEM_SIZE)


def test_user_memory_is_copied_or_a_fault() -> None:
    guest = Machine("""
        fbt::: { trace(copyinstr(arg0)); trace(copyinstr(arg0, 3)); }
        fbt::: { tracemem(copyin(arg0, arg1), 8); this->p = alloca(16); copyinto(arg0, 5, this->p); }
    """)
    guest.write(USER + 16, b"hello, world\0")
    assert guest.fire(rdi=USER + 16, rsi=8).fault == 0
    first, second = guest.drain()
    assert first.payload[:13] == b"hello, world\0" and first.payload[256:260] == b"hel\0"
    assert second.payload[:8] == b"hello, w"
    for bad in (0, KMEM, USER + USER_SIZE, (1 << 64) - 8):
        guest.fire(rdi=bad, rsi=8)
        assert [fault(r)[:2] for r in guest.drain()] == [(FaultKind.BADADDR, bad)] * 2
    guest.fire(rdi=USER, rsi=1 << 40)
    assert [r.fault for r in guest.drain()] == [0, FaultKind.NOSCRATCH]


@pytest.mark.parametrize("empty_is_0", [False, True])
def test_an_empty_string_of_a_process_is_no_fault_on_any_kernel(empty_is_0: bool) -> None:
    """Kernels differ in what their function returns for it."""
    script = "fbt::: { trace(copyinstr(arg0)); trace(copyinstr(arg0, 3)); trace(copyinstr(arg0, 0)); }"
    guest = Machine(script, empty_is_0=empty_is_0)
    guest.write(USER + 16, b"something longer\0")
    assert fired(guest, rdi=USER + 16).payload[:17] == b"something longer\0"
    guest.write(USER + 16, b"\0x")
    for at in (USER + 16, USER + USER_SIZE - 1):
        guest.write(USER + USER_SIZE - 1, b"\0")
        record = fired(guest, rdi=at)
        assert (record.fault, record.payload) == (0, bytes(3 * 256))
    assert fault(fired(guest, rdi=USER + USER_SIZE))[:2] == (FaultKind.BADADDR, USER + USER_SIZE)


@pytest.mark.parametrize("empty_is_0", [False, True])
def test_a_string_of_a_process_may_end_where_its_memory_ends(empty_is_0: bool) -> None:
    """With its NUL as the last byte, or with as many bytes as are asked for and none after them."""
    guest = Machine(
        "fbt::: { trace(copyinstr(arg0)); } fbt::: { trace(copyinstr(arg0, arg1)); }", empty_is_0=empty_is_0
    )
    end = USER + USER_SIZE
    guest.write(end - 6, b"hello\0")
    guest.fire(rdi=end - 6, rsi=5)
    assert [record.payload[:6] for record in guest.drain()] == [b"hello\0"] * 2
    guest.write(end - 6, b"mellow")
    guest.fire(rdi=end - 6, rsi=6)
    whole, part = guest.drain()
    assert fault(whole)[:2] == (FaultKind.BADADDR, end - 6)
    assert (part.fault, part.payload[:7]) == (0, b"mellow\0")
    for size in (7, 300):
        guest.fire(rdi=end - 6, rsi=size)
        assert [fault(record)[:2] for record in guest.drain()] == [(FaultKind.BADADDR, end - 6)] * 2
    guest.fire(rdi=end - 6, rsi=4)
    assert guest.drain()[1].payload[:5] == b"mell\0"
