"""``chill() copyout() copyoutstr() panic()`` in the guest."""

from __future__ import annotations

import struct

import pytest

from probekit.buffers.layout import FAULT_WORDS, FaultKind, HeaderWord, RawRecord
from probekit.codegen.runtime.destructive import LONGEST_CHILL_NS
from probekit.errors import UnsupportedError
from tests.codegen.emulated_kernel import KMEM, KMEM_BYTES, KMEM_SIZE, PANIC, SIGNAL, USER, USER_SIZE
from tests.codegen.machine import Machine

KHZ = 1_000_000
"""Ticks of the machine's counter in a millisecond, as the tests say: any figure will do."""


def fired(guest: Machine, **regs: int) -> tuple[int, ...]:
    """The kinds of fault of one firing's records, 0 for none."""
    done = guest.fire(**regs)
    assert (done.fault, done.bad) == (0, ())
    assert guest.word(HeaderWord.GUARD) == 0
    return tuple(record.fault for record in guest.drain())


def stamps(record: RawRecord) -> tuple[int, int]:
    """What two ``trace(timestamp)`` of one clause have recorded."""
    first, second = struct.unpack_from("<Q", record.payload), struct.unpack_from("<Q", record.payload, 16)
    return first[0], second[0]


def chilling() -> Machine:
    return Machine("fbt::: { chill((int)arg0); }", tsc_khz=KHZ)


@pytest.mark.parametrize("wanted", [0, 1, 1_000, 1_000_000, 20_000_000])
def test_a_chill_takes_as_long_as_it_says(wanted: int) -> None:
    text = "fbt::: { trace(timestamp); chill((int)arg0); trace(timestamp); }"
    guest = Machine(text, tsc_khz=KHZ, tsc_shared=True)
    assert guest.fire(rdi=wanted).bad == ()
    (record,) = guest.drain()
    first, second = stamps(record)
    assert wanted <= second - first
    assert guest.word(HeaderWord.CHILLED) == wanted * KHZ // 1_000_000


@pytest.mark.parametrize("khz", [999_999, 2_400_001, 4_999_999])
def test_ticks_are_rounded_up(khz: int) -> None:
    guest = Machine("fbt::: { chill((int)arg0); }", tsc_khz=khz)
    assert fired(guest, rdi=1) == (0,)
    assert guest.word(HeaderWord.CHILLED) == -(-khz // 1_000_000)
    for over in (0, 1):
        guest.set_word(HeaderWord.CHILLED, 500 * khz - -(-khz // 1_000) + over)
        assert fired(guest, rdi=1000) == ((FaultKind.ILLOP,) if over else (0,))


@pytest.mark.parametrize("wanted", [LONGEST_CHILL_NS + 1, (1 << 31) - 1, -1, -(1 << 31)])
def test_a_chill_that_is_too_long_is_refused(wanted: int) -> None:
    guest = chilling()
    assert fired(guest, rdi=wanted) == (FaultKind.ILLOP,)
    assert guest.word(HeaderWord.CHILLED) == 0


def test_chills_take_half_of_each_interval_at_most() -> None:
    """What was waited counts until the interval is over; then there is as much again."""
    guest = chilling()
    assert fired(guest, rdi=1000) == (0,)
    since = guest.word(HeaderWord.CHILL_SINCE)
    limit = LONGEST_CHILL_NS * KHZ // 1_000_000
    guest.set_word(HeaderWord.CHILLED, limit - 1000)
    # A counter that is far ahead of the real one keeps the interval open however long this takes.
    guest.set_word(HeaderWord.CHILL_SINCE, since)
    assert fired(guest, rdi=1001) == (FaultKind.ILLOP,)
    assert fired(guest, rdi=1000) == (0,)
    assert guest.word(HeaderWord.CHILLED) == limit
    assert fired(guest, rdi=1) == (FaultKind.ILLOP,)
    guest.set_word(HeaderWord.CHILL_SINCE, since - 3 * limit)
    assert fired(guest, rdi=1) == (0,)
    assert guest.word(HeaderWord.CHILLED) == 1 * KHZ // 1_000_000
    assert guest.word(HeaderWord.CHILL_SINCE) >= since


def test_chills_of_one_firing_add_up() -> None:
    guest = Machine("fbt::: { chill(300000); } fbt::: { chill(200000); chill(100000); }", tsc_khz=KHZ)
    assert fired(guest) == (0, 0)
    assert guest.word(HeaderWord.CHILLED) == 600_000 * KHZ // 1_000_000


def test_a_chill_needs_the_rate_of_the_counter() -> None:
    with pytest.raises(UnsupportedError) as caught:
        Machine("fbt::: { chill(1); }", tsc_khz=0)
    assert caught.value.feature == "chill"


# -- memory of a program ------------------------------------------------------------------------------------------

COPYOUT = "fbt::: { copyout((void *)arg0, arg1, arg2); trace(1); }"


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 200, 1000])
def test_copyout_writes_the_bytes_to_user_memory(size: int) -> None:
    guest = Machine(COPYOUT)
    before = guest.read(USER, USER_SIZE)
    assert fired(guest, rdi=KMEM + 5, rsi=USER + 3, rdx=size) == (0,)
    assert guest.read(USER, USER_SIZE) == before[:3] + KMEM_BYTES[5 : 5 + size] + before[3 + size :]


@pytest.mark.parametrize(
    ("source", "target", "size", "kind", "word"),
    [
        (KMEM, 0, 8, FaultKind.BADADDR, 0),
        (KMEM, KMEM, 8, FaultKind.BADADDR, KMEM),
        (KMEM, USER + USER_SIZE - 7, 8, FaultKind.BADADDR, USER + USER_SIZE - 7),
        (KMEM, (1 << 64) - 8, 8, FaultKind.BADADDR, (1 << 64) - 8),
        (8, USER, 8, FaultKind.BADADDR, 8),
        (KMEM + KMEM_SIZE - 7, USER, 8, FaultKind.BADADDR, KMEM + KMEM_SIZE - 7),
        (KMEM, USER, 1 << 40, FaultKind.NOSCRATCH, 0),
        (KMEM, USER, (1 << 64) - 1, FaultKind.NOSCRATCH, 0),
        (KMEM, USER, 1025, FaultKind.NOSCRATCH, 0),
    ],
)
def test_copyout_to_or_from_a_bad_address_is_a_fault(
    source: int, target: int, size: int, kind: FaultKind, word: int
) -> None:
    """Nothing is written unless all of it can be read."""
    guest = Machine(COPYOUT)
    before = guest.read(USER, USER_SIZE)
    assert guest.fire(rdi=source, rsi=target, rdx=size).bad == ()
    (record,) = guest.drain()
    assert (record.fault, FAULT_WORDS.unpack(record.payload)[0]) == (kind, word)
    assert guest.read(USER, USER_SIZE) == before


def test_copyout_gives_its_memory_back() -> None:
    guest = Machine("""fbt::: {
        this->p = (char *)alloca(8); this->p[0] = 'x'; this->p[1] = 'y';
        copyout(this->p, arg0, 2); copyout(this->p, arg0 + 2, 2); copyout((void *)arg1, arg0 + 4, 1016);
        this->q = (char *)alloca(1016); this->q[1015] = 'z'; copyout(this->p, arg0 + 1020, 1);
    }""")
    assert fired(guest, rdi=USER, rsi=KMEM) == (FaultKind.NOSCRATCH,), "the last one, beside all that is in use"
    assert guest.read(USER, 1020) == b"xyxy" + KMEM_BYTES[:1016]


@pytest.mark.parametrize(
    ("most", "written"), [(0, b""), (1, b"h"), (5, b"hello"), (6, b"hello\0"), (7, b"hello\0"), (1 << 60, b"hello\0")]
)
def test_copyoutstr_writes_the_string_with_its_end(most: int, written: bytes) -> None:
    guest = Machine('fbt::: { copyoutstr("hello", arg0, arg1); trace(1); }')
    before = guest.read(USER, USER_SIZE)
    assert fired(guest, rdi=USER + 1, rsi=most) == (0,)
    assert guest.read(USER, USER_SIZE) == before[:1] + written + before[1 + len(written) :]
    assert fired(guest, rdi=0x1000, rsi=6) == (FaultKind.BADADDR,)


@pytest.mark.parametrize(("strsize", "written"), [(2, b"b\0"), (4, b"bas\0"), (16, b"bash\0")])
def test_copyoutstr_is_cut_as_strings_are(strsize: int, written: bytes) -> None:
    guest = Machine(
        "fbt::: { copyoutstr(execname, arg0, 100); copyoutstr((char *)arg1, arg0 + 32, 100); }", strsize=strsize
    )
    guest.write(KMEM, b"bash\0")
    assert guest.fire(rdi=USER, rsi=KMEM).bad == ()
    assert guest.read(USER, 16) == written + KMEM_BYTES[len(written) : 16]
    assert guest.read(USER + 32, 16) == written + KMEM_BYTES[32 + len(written) : 48]


def test_nothing_is_written_to_memory_that_is_not_the_tasks() -> None:
    guest = Machine(f'{COPYOUT} fbt::: {{ copyoutstr("x", arg1, 2); }}', user_okay=False)
    before = guest.read(USER, USER_SIZE)
    assert fired(guest, rdi=KMEM, rsi=USER, rdx=8) == (FaultKind.BADADDR, FaultKind.BADADDR)
    assert guest.read(USER, USER_SIZE) == before


# -- signals ------------------------------------------------------------------------------------------------------


def sent(guest: Machine) -> int:
    """The signal that the machine's kernel was asked for last."""
    return int.from_bytes(guest.read(SIGNAL, 4), "little")


@pytest.mark.parametrize("number", [0, 1, 9, 64])
def test_a_signal_is_sent_to_the_task(number: int) -> None:
    guest = Machine("fbt::: { trace(1); raise((int)arg0); trace(2); }")
    assert fired(guest, rdi=number) == (0,)
    assert sent(guest) == number


@pytest.mark.parametrize("number", [65, 1 << 20, -1])
def test_a_signal_that_does_not_exist_is_not_sent(number: int) -> None:
    guest = Machine("fbt::: { trace(1); raise((int)arg0); trace(2); }")
    assert guest.fire(rdi=number).bad == ()
    (record,) = guest.drain()
    assert (record.fault, *FAULT_WORDS.unpack(record.payload)[:2]) == (FaultKind.ILLOP, number & (1 << 64) - 1, 1)
    assert sent(guest) == 0


@pytest.mark.parametrize(("count", "sends"), [(0, True), (0xFFFF, True), (1 << 16, False), (1 << 20, False)])
def test_no_signal_while_an_interrupt_is_handled(count: int, sends: bool) -> None:
    guest = Machine("fbt::: { raise(9); } fbt::: { stop(); }", preempt_count=count)
    assert fired(guest) == ((0, 0) if sends else (FaultKind.ILLOP, FaultKind.ILLOP))
    assert sent(guest) == (19 if sends else 0)


def test_stop_sends_the_stop_signal() -> None:
    guest = Machine("fbt::: /arg0/ { stop(); } fbt::: { @ = count(); }")
    assert fired(guest, rdi=0) == ()
    assert sent(guest) == 0
    assert fired(guest, rdi=1) == (0,)
    assert sent(guest) == 19
    assert guest.table(0) == {(): (2,)}


@pytest.mark.parametrize("action", ["raise(9);", "stop();", "panic();", "copyout((void *)arg0, arg1, 1);"])
def test_a_kernel_that_lacks_the_function_is_refused(action: str) -> None:
    """Refused by the name of what is missing, while there is nothing in the guest."""
    with pytest.raises(UnsupportedError, match="this kernel has no "):
        Machine(f"fbt::: {{ {action} }}", services=False)


# -- the end ------------------------------------------------------------------------------------------------------


def test_panic_comes_last() -> None:
    """What the clause has recorded can still be read; the kernel is told in words."""
    guest = Machine("fbt::: /arg0/ { trace(7); panic(); } fbt::: { trace(8); }")
    assert fired(guest, rdi=0) == (0,)
    done = guest.fire(rdi=1)
    assert done.rip in (PANIC, PANIC + 1) and done.bad == ()
    (record,) = guest.drain()
    assert record.payload[:4] == struct.pack("<i", 7)
    assert guest.read(done.regs["rdi"], 12) == b"panic() by a"
    assert done.regs["rax"] == 0 and done.regs["rsp"] % 16 == 8
