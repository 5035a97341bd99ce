"""Memory that a script records, and memory that it may write."""

from __future__ import annotations

import struct

import pytest

from probekit.buffers.layout import FaultKind
from tests.codegen.emulated_kernel import (
    DATA,
    KMEM,
    KMEM_BYTES,
    KMEM_SIZE,
)
from tests.codegen.machine import Machine
from tests.codegen.records import fault, fired


def test_recorded_memory_is_read_whole_or_a_fault() -> None:
    guest = Machine("fbt::: { trace(7); tracemem(arg0, 37); }")
    assert fired(guest, rdi=KMEM + 3).payload[8:45] == KMEM_BYTES[3:40]
    assert fault(fired(guest, rdi=KMEM + KMEM_SIZE - 36))[:3] == (FaultKind.BADADDR, KMEM + KMEM_SIZE - 36, 1)


@pytest.mark.parametrize("target", [KMEM, DATA, DATA + 0x40, 0, 0xFFFFFFFFC0000000])
def test_a_script_writes_only_what_is_its_own(target: int) -> None:
    guest = Machine("struct p { int a; int b; }; struct p o; fbt::: { *(int *)arg0 = 5; trace(o.a); }")
    before = guest.memory()
    assert fault(fired(guest, rdi=target))[:2] == (FaultKind.BADADDR, target)
    globals_end = guest.plan.sites
    assert guest.memory()[8:globals_end] == before[8:globals_end]
    own = DATA + guest.storage.globals_[guest.storage.objects[0]].offset
    assert fired(guest, rdi=own).payload[:4] == struct.pack("<i", 5)
    for outside in (own - 1, own + 5, own + 8):
        assert fired(guest, rdi=outside).fault == FaultKind.BADADDR
