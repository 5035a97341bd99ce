"""What decides whether a firing does anything: recursion, the activity word, exit, and the bound of its stack."""

from __future__ import annotations

from probekit.buffers.layout import HeaderWord
from tests.codegen.built_program import Function
from tests.codegen.compared import Compared, compare
from tests.codegen.emulated_kernel import (
    KMEM,
    STACK_TOP,
)
from tests.codegen.machine import Machine

EVERYTHING = """
int64_t x;
fbt::: { x++; @ = count(); @k[arg0] = sum(1); @q = quantize(arg0); trace(arg0); }
fbt::: /arg1 == 5/ { trace(10 / arg2); }
"""


def test_a_firing_inside_a_firing_is_a_counted_drop_and_nothing_else() -> None:
    guest = Machine(EVERYTHING)
    guest.fire(rdi=1, rsi=5)
    guest.drain()
    guest.set_word(HeaderWord.GUARD, 1)
    before = guest.memory()
    for n in range(3):
        assert guest.fire(rdi=1, rsi=5).fault == 0
        assert guest.word(HeaderWord.RECURSION_DROPS) == n + 1
    guest.set_word(HeaderWord.RECURSION_DROPS, 0)
    assert guest.memory() == before
    guest.set_word(HeaderWord.GUARD, 0)
    guest.fire(rdi=1, rsi=5)
    assert len(guest.drain()) == 2


def test_the_activity_word_silences() -> None:
    guest = Machine(EVERYTHING)
    guest.set_activity(1)
    before = guest.memory()
    guest.fire(rdi=1, rsi=5)
    assert guest.memory() == before
    guest.set_activity(0)
    guest.fire(rdi=1)
    assert guest.globals_() == {0: 1}


def test_exit_ends_the_firing_and_every_later_one() -> None:
    both = Compared(
        "int x; fbt::: { x++; } fbt::: /x == 3/ { trace(x); exit(arg0); } fbt::: { @[arg0] = count(); trace(7); }",
        functions=(Function(), Function()),
    )
    for n in range(6):
        both.fire(n, function=n & 1)
    both.check()
    assert both.silent
    assert both.machine.globals_() == {0: 3}
    assert both.machine.table(0) == {(0,): (1,), (1,): (1,)}


def test_exit_that_is_not_reached_silences_nothing() -> None:
    """Behind a predicate, in a branch not taken, aborted by a fault, or dropped for want of room."""
    both = compare(
        "fbt::: /arg0 == 1/ { exit(0); } fbt::: { if (arg0 == 2) { exit(1); } else { trace(2); } }", (0,), (3,)
    )
    assert not both.silent
    both = compare("fbt::: { exit(10 / arg0); }", (0,), (0,), (2,), (3,))
    assert both.silent
    guest = Machine("fbt::: { exit(0); }", bufsize=0)
    guest.fire()
    assert (guest.activity, guest.word(HeaderWord.PRINCIPAL_DROPS)) == (0, 1)


def test_stack_in_use_is_bounded() -> None:
    """Nothing below 2 KiB and the saved registers is touched, whatever the script."""
    keys = ", ".join(f'arg{n} ? probefunc : "{n}"' for n in range(7))
    guest = Machine(f"fbt::: {{ @[{keys}] = count(); }}", aggsize=1 << 16)
    low = STACK_TOP - 2400
    guest.write(low - 0x800, b"\xa5" * 0x800)
    assert guest.fire(rdi=1).fault == 0
    assert guest.read(low - 0x800, 0x800) == b"\xa5" * 0x800
    assert len(guest.table(0)) == 1


def test_own_doing_is_no_drop() -> None:
    """A firing inside a clause is dropped and counted, unless it comes of the clause's own calls into the kernel."""
    for script, own in (("trace(arg0);", False), ("trace(*(int *)arg0);", True)):
        guest = Machine(f"fbt::: {{ {script} }}", preempt_count=2)
        guest.set_word(HeaderWord.GUARD, 1)
        guest.fire(rdi=KMEM)
        assert guest.word(HeaderWord.RECURSION_DROPS) == (not own)
    nmi = Machine("fbt::: { trace(*(int *)arg0); }", preempt_count=0x100002)
    nmi.set_word(HeaderWord.GUARD, 1)
    nmi.fire(rdi=KMEM)
    assert nmi.word(HeaderWord.RECURSION_DROPS) == 1
    nmi.set_word(HeaderWord.GUARD, 0)
    nmi.fire(rdi=KMEM)
    assert nmi.word(HeaderWord.GUARD) == 0 and len(nmi.drain()) == 1
