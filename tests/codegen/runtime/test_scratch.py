"""Scratch memory: it is given out, copied to and bounded."""

from __future__ import annotations

import pytest

from probekit.buffers.layout import FaultKind
from tests.codegen.compared import compare
from tests.codegen.emulated_kernel import (
    KMEM,
)
from tests.codegen.machine import Machine
from tests.codegen.records import fired


def test_scratch_memory_is_given_out_until_there_is_no_more() -> None:
    compare(
        """fbt::: {
            this->p = (char *)alloca(16); this->q = (int *)alloca(arg0);
            this->p[0] = 'a'; this->p[1] = arg1; *(this->q + 1) = arg2;
            bcopy(this->p, this->p + 3, 9); trace(stringof(this->p)); trace(*(this->q + 1)); trace(this->p[4]);
        }""",
        (8, 65, 77),
        (16, 0, -1),
        (1 << 20, 0, 0),
        (-1, 1, 1),
        (1 << 63, 1, 1),
        scratchsize=1 << 16,
    )
    guest = Machine("fbt::: { this->p = (char *)alloca(arg0); this->p[arg1] = 1; trace(1); }", scratchsize=64)
    assert fired(guest, rdi=64, rsi=63).fault == 0
    assert fired(guest, rdi=60, rsi=64).fault == FaultKind.BADADDR
    assert fired(guest, rdi=65, rsi=0).fault == FaultKind.NOSCRATCH


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 200])
def test_a_copy_is_as_on_the_host_at_any_size(size: int) -> None:
    both = f"""fbt::: {{
        this->p = (char *)alloca(256); bcopy((char *)arg0, this->p, {size}); bcopy(this->p, this->p + arg1, arg2);
        trace(this->p[0]); trace(this->p[{max(size - 1, 0)}]); trace(this->p[20]); trace(this->p[255]);
    }}"""
    for args in ((KMEM, 0, 0), (KMEM + 5, 1, 100), (KMEM + 5, 20, 200), (KMEM, 0, 256), (5, 0, 0)):
        compare(both, args)
