"""Memory that may not be there, memory that a script may write, user memory, the unwinder."""

from __future__ import annotations

import struct

import pytest

from probekit.buffers.layout import FAULT_WORDS, FaultKind, HeaderWord, RawRecord
from tests.codegen.built_program import NOP5, RET, Function, function_addr
from tests.codegen.compared import compare
from tests.codegen.emulated_kernel import DATA, DONE, KMEM, KMEM_BYTES, KMEM_SIZE, USER, USER_SIZE
from tests.codegen.machine import Machine

EDGES = (
    *(0, 1, 0x1000, (1 << 47) - 1, 1 << 47, 0x8000000000000000, 0xFFFF7FFFFFFFFFFF, 0xFFFF800000000000),
    *(0xFFFFFFFFFF5FFFF8, 0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, 0xFFFFFFFFFFFFFFF8, 0xFFFFFFFFFFFFFFFF),
)


def fired(guest: Machine, **regs: int) -> RawRecord:
    """The one record of one firing."""
    done = guest.fire(**regs)
    assert (done.fault, done.bad) == (0, ())
    (record,) = guest.drain()
    return record


def fault(record: RawRecord) -> tuple[int, int, int, int]:
    """Kind, word, action and place."""
    return (record.fault, *FAULT_WORDS.unpack(record.payload))


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


def test_recorded_memory() -> None:
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


def test_scratch_memory() -> None:
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
def test_copies(size: int) -> None:
    both = f"""fbt::: {{
        this->p = (char *)alloca(256); bcopy((char *)arg0, this->p, {size}); bcopy(this->p, this->p + arg1, arg2);
        trace(this->p[0]); trace(this->p[{max(size - 1, 0)}]); trace(this->p[20]); trace(this->p[255]);
    }}"""
    for args in ((KMEM, 0, 0), (KMEM + 5, 1, 100), (KMEM + 5, 20, 200), (KMEM, 0, 256), (5, 0, 0)):
        compare(both, args)


def test_user_memory() -> None:
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


FUNCTIONS = (Function(), Function(NOP5 + RET, "return"))


def test_the_stack_starts_where_the_site_is() -> None:
    """The machine's unwinder gives the return address, the registers' own address and rbp, as long as there is room."""
    guest = Machine(
        "fbt::: { stack(5); stack(1); trace(stackdepth); trace(caller); @[stack(2)] = count(); }", FUNCTIONS
    )
    for number, site in enumerate((function_addr(0), function_addr(1) + 5)):
        guest.fire(number, rbp=0x1234)
        (record,) = guest.drain()
        words = struct.unpack_from("<6Q", record.payload)
        assert words == (DONE, site, 0x1234, 0, 0, DONE)
        assert struct.unpack_from("<I", record.payload, 48)[0] == 3
        assert struct.unpack_from("<Q", record.payload, 56)[0] == DONE
    keys = {struct.pack("<2Q", DONE, site) for site in (function_addr(0), function_addr(1) + 5)}
    assert {key[0] for key in guest.table(0)} == keys


def test_stack_keys_of_many_frames() -> None:
    guest = Machine("fbt::: { @[stack(100), arg0] = count(); }", aggsize=1 << 14)
    for n in (1, 2, 1):
        guest.fire(rdi=n)
    assert sorted((key[1], words[0]) for key, words in guest.table(0).items()) == [(1, 2), (2, 1)]


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
