"""The probed function notices nothing: registers, flags and stack, at every form of site."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import HeaderWord
from tests.codegen.built_program import NOP5, RET, Function, function_addr
from tests.codegen.emulated_kernel import DONE, IF, RETURN_THUNK, STACK_TOP, G
from tests.codegen.machine import ARITHMETIC, REGISTERS, Machine, jump

F = function_addr(0)
ADD = "4801f8"  # add rax, rdi
CMP = "4883ff01"  # cmp rdi, 1
FLAGS_OUT = "9c58"  # pushfq; pop rax

FORMS = {
    "entry": Function(NOP5 + ADD + RET, "entry"),
    "entry_endbr": Function("f30f1efa" + NOP5 + ADD + RET, "entry"),
    "ret": Function(NOP5 + ADD + RET, "return"),
    "ret_imm": Function(NOP5 + ADD + "c20800cccc", "return"),
    "return_thunk": Function(NOP5 + ADD + jump("e9", F + 8, RETURN_THUNK), "return"),
    "tail_jump": Function(NOP5 + ADD + jump("e9", F + 8, G), "return"),
    "indirect_tail_jump": Function(NOP5 + ADD + "ffe1cc9090", "return"),  # jmp rcx
}

# Each saves another set of registers, or takes another way through the thunk.
SCRIPTS = {
    "inline": "fbt::: { @ = count(); }",
    "inline_twice": "fbt::: { @ = count(); } fbt::: { @b[probefunc] = count(); }",
    "dense": "fbt::: { @ = quantize(arg0); @m = min(arg1); }",
    "arguments": "fbt::: { trace(arg4 + arg5 * arg3); trace(arg9); }",
    "record": 'fbt::: /arg0 != 77/ { printf("%s %d", execname, arg1 / 3); x = x0++; x += arg1 << arg2; }',
    "table": "fbt::: { @[pid, execname, arg0] = avg(arg1); }",
    "texts": 'fbt::: /execname != "init"/ { trace(arg0 ? probefunc : "something else"); }',
    "clocks": "fbt::: { trace(vtimestamp + walltimestamp); }",
    "clock": "fbt::: { @ = max(timestamp); this->t = timestamp; trace(this->t - arg0); }",
    "fault": "int x; fbt::: { trace(arg0 / x); }",
    "exit": "fbt::: { exit(3); }",
    "nothing": "fbt::: /arg0 == arg0 + 1/ { trace(1); }",
}
MACHINES: dict[tuple[str, str, bool], Machine] = {}

_words = st.integers(0, (1 << 64) - 1)
_flags = st.builds(lambda bits, more: bits & ARITHMETIC | more | 2, _words, st.sampled_from((IF, 0, IF | 0x40000)))
_registers = st.fixed_dictionaries({name: _words for name in REGISTERS if name not in ("rsp", "rcx")})


def machine(form: str, script: str, preemptible: bool = False) -> Machine:
    key = (form, script, preemptible)
    if key not in MACHINES:
        MACHINES[key] = Machine(SCRIPTS[script], [FORMS[form]], preemptible=preemptible)
    return MACHINES[key]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("script", SCRIPTS)
@settings(max_examples=4)
@given(regs=_registers, flags=_flags, offset=st.integers(0, 8))
def test_no_register_flag_or_stack_word_changes(
    script: str, form: str, regs: dict[str, int], flags: int, offset: int
) -> None:
    guest = machine(form, script)
    guest.set_activity(0)
    rsp = STACK_TOP - 8 * offset
    expected = guest.fire_unpatched(flags=flags, rsp=rsp, rcx=G, **regs)
    found = guest.fire(flags=flags, rsp=rsp, rcx=G, **regs)
    assert (found.fault, expected.fault) == (0, 0)
    assert found.rip == expected.rip == DONE
    assert found.regs == expected.regs
    dead = ARITHMETIC if script.startswith("inline") else 0
    assert found.flags & ~dead == expected.flags & ~dead
    assert found.bad == ()
    guest.drain()


@pytest.mark.parametrize("script", ["dense", "table", "clock"])
@pytest.mark.parametrize("quiet", ["silent", "recursion"])
@settings(max_examples=5)
@given(regs=_registers, flags=_flags)
def test_nothing_changes_when_nothing_runs(script: str, quiet: str, regs: dict[str, int], flags: int) -> None:
    guest = machine("entry", script, preemptible=True)
    expected = guest.fire_unpatched(flags=flags, rcx=G, **regs)
    guest.set_activity(quiet == "silent")
    guest.set_word(HeaderWord.GUARD, quiet == "recursion")
    found = guest.fire(flags=flags, rcx=G, **regs)
    assert (found.regs, found.flags, found.rip) == (expected.regs, expected.flags, DONE)


@pytest.mark.parametrize("condition", range(16))
@pytest.mark.parametrize("script", ["inline", "record", "clock"])
def test_a_conditional_tail_jump_fires_only_when_it_is_taken(script: str, condition: int) -> None:
    """Fires when the jump is taken and only then; where it is not, the flags behind it are the original ones."""
    code = NOP5 + CMP + jump(f"0f{0x80 + condition:02x}", F + 9, G) + FLAGS_OUT + RET
    text = {"inline": SCRIPTS["inline"], "record": "fbt::: { trace(arg1); }", "clock": SCRIPTS["clock"]}[script]
    guest = Machine(text, [Function(code, "return")])
    jumps = [n for n, site in enumerate(guest.sites) if getattr(site.site, "kind", "") == "cond_tail_jump"]
    assert len(jumps) == 1 and len(guest.sites) == 2
    fired = 0
    for rdi in (0, 1, 2, -1, 1 << 63):
        expected = guest.fire_unpatched(rdi=rdi)
        found = guest.fire(rdi=rdi)
        assert (found.regs, found.rip) == (expected.regs, DONE)
        if script != "inline":
            assert found.flags == expected.flags
            (record,) = guest.drain() or [None]
            taken = expected.regs["rax"] == 0x77
            assert record is not None
            assert (record.site in jumps) == taken
            fired += taken
    if script == "inline":
        assert guest.table(0) == {(): (5,)}  # through one way out or the other
    elif condition not in (0, 1):  # no value overflows, or all do
        assert 0 < fired < 5 or condition in (10, 11)


def test_the_machine_can_fail() -> None:
    """The checks see a spoiled register, a forbidden store and a lost interrupt flag."""
    guest = machine("entry", "dense")
    good = guest.fire()
    assert good.flags & IF and good.bad == ()
    assert not guest.fire(flags=2).flags & IF
    guest.write(guest.block - 8, b"\0" * 8)  # the host may
    broken = Machine("fbt::: { @ = sum(arg0); }")
    broken.block += 4096  # what was allowed is forbidden now
    assert broken.fire(rdi=1).bad != ()
