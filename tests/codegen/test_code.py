"""Bounds on the code itself: it only goes forward, uses few instructions, and stays small."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hypothesis import HealthCheck, assume, given, settings

from probekit.errors import UnsupportedError
from probekit.ir.ops import Op
from probekit.isa.decode import Insn, decode_run
from probekit.lang.diagnostics import CompileError
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.emulated_kernel import CLOCK, CODE, RUN, WALL
from tests.codegen.machine import Machine
from tests.codegen.scripts import scripts

EXAMPLES = int(os.environ.get("PROBEKIT_FUZZ", "25"))

ALLOWED = frozenset(
    """
    adc add and bsr bswap call clc cli cmp cmpxchg cqo dec div idiv imul inc int3 ja jae jb jbe je jg jge jl jle jmp
    jne jns js lea mov movsx movsxd movzx mul neg not or pause pop popfq push pushfq rdtsc ret ror sar sbb seta setae
    setb setbe sete setg setge setl setle setne shl shr stc sub test xadd xchg xor
    """.split()
)
BYTES_PER_OP = 80
BYTES_PER_CLAUSE = 160
BYTES_PER_THUNK = 160
BYTES_PER_KEY_WORD = 24
ROUTINES = 600


def _ops(guest: Machine) -> Sequence[Op]:
    return [op for clause in guest.program.clauses for block in clause.blocks for op in block.ops]


def check(guest: Machine) -> None:
    """Everything that holds for the code of any script."""
    insns = list(decode_run(guest.code, CODE))
    starts = {insn.addr for insn in insns}
    thunks = sorted(guest.image.thunks.values())
    first_thunk = min(thunks, default=CODE + len(guest.image.code))
    routine = {insn.target for insn in insns if insn.flow == "call" and insn.target and insn.target < first_thunk}
    for insn in insns:
        assert insn.mnemonic in ALLOWED, insn
        if insn.addr >= first_thunk:
            _forward(insn, starts, thunks, routine, guest)
    words = sum(plan.key_words for plan in guest.program.aggregations)
    clauses = len(guest.program.clauses)
    limit = len(thunks) * (BYTES_PER_THUNK + clauses * BYTES_PER_CLAUSE + len(_ops(guest)) * BYTES_PER_OP)
    limit += (len(thunks) + 1) * words * BYTES_PER_KEY_WORD
    limit += ROUTINES + len(guest.program.aggregations) * ROUTINES
    assert len(guest.image.code) <= limit
    assert len(guest.code) <= guest.bound


CLOCKS = (CLOCK, WALL, RUN.now)


def _forward(insn: Insn, starts: set[int], thunks: list[int], routines: set[int], guest: Machine) -> None:
    """Inside thunks and stubs control goes on, into the routines (and back), or out of a stub."""
    if insn.flow == "call":
        assert insn.target in routines or insn.target in thunks or insn.target in CLOCKS, insn
    elif insn.flow in ("jump", "cond"):
        assert insn.target is not None
        if CODE <= insn.target < CODE + len(guest.code):
            assert insn.target > insn.addr and insn.target in starts, insn
            if insn.addr < CODE + len(guest.image.code):
                assert not any(insn.addr < thunk <= insn.target for thunk in thunks), "a jump into another thunk"
        else:
            assert insn.addr >= CODE + len(guest.image.code), "only stubs leave our code"
    else:
        assert insn.flow in ("next", "ret", "trap"), insn


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(scripts())
def test_any_script_keeps_to_the_bounds_of_code(text: str) -> None:
    try:
        guest = Machine(text, (Function(), Function(NOP5 + RET, "return")), aggsize=1 << 14)
    except (CompileError, UnsupportedError):
        assume(False)
    check(guest)


def test_one_pair_of_interrupt_flag_changes() -> None:
    """Each of pushfq, cli and popfq costs a translated block under TCG."""
    guest = Machine("int x; fbt::: /x/ { @[pid] = max(timestamp); trace(1 / arg0); } fbt::: { x++; }")
    check(guest)
    (thunk,) = guest.image.thunks.values()
    names = [insn.mnemonic for insn in decode_run(guest.code[thunk - CODE :], thunk)]
    assert (names.count("pushfq"), names.count("cli")) == (1, 1)
    assert names.count("popfq") == 2  # the way out, and that of a recursion


STEPS = {
    "fbt::: { @ = count(); }": 5,
    "fbt::: { @ = quantize(arg0); }": 43,
    "fbt::: { @[probefunc] = quantize(arg0); }": 43,
    "fbt::: { @[pid, execname] = count(); }": 86,
    "fbt::: { @[execname] = quantize(arg0); }": 85,
    "fbt::: /pid == 7/ { @ = sum(arg0); }": 40,
    "fbt::: { trace(arg0); }": 64,
    "int64_t x; fbt::: { x++; } fbt::: /x > 3 && arg0 < 100/ { trace(x); }": 44,
}


def test_a_firing_takes_no_more_instructions_than_before() -> None:
    """No script costs more than it did; raise a figure only for a reason."""
    for text, most in STEPS.items():
        guest = Machine(text)
        guest.fire(rdi=5)
        steps = guest.fire(rdi=5, count=True).steps
        assert 0 < steps <= most, f"{text}: {steps}"
