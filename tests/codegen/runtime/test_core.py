"""The ring: pads, exact fills, drops counted one by one, large records, no ring at all."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import FAULT_WORDS, RECORD_HEADER, HeaderWord
from tests.codegen.machine import Machine

TEXT_80 = "x" * 79
SIZES = {
    1: "trace(arg1);",
    2: f'trace("{TEXT_80}"); trace(arg1);',
    4: f'printf("%s%s%s%d", "{TEXT_80}", "{TEXT_80}", "{TEXT_80}", arg1);',
}
SCRIPT = " ".join(f"fbt::: /arg0 & {bit}/ {{ {body} }}" for bit, body in SIZES.items())
FAULTS = "fbt::: /arg0 & 8/ { trace(1 / (arg1 - arg1)); }"


class Model:
    """What the ring does, in words: records lie whole before the ring's end, or a pad fills it up."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.head = self.tail = self.drops = 0
        self.waiting: list[tuple[int, int]] = []

    def write(self, size: int, record: tuple[int, int]) -> None:
        room = self.size - self.head % self.size
        if room < size and self.head - self.tail + room <= self.size:
            self.head += room
        if self.size - self.head % self.size < size or self.head - self.tail + size > self.size:
            self.drops += 1
            return
        self.head += size
        self.waiting.append(record)

    def drain(self) -> list[tuple[int, int]]:
        self.tail = self.head
        found, self.waiting = self.waiting, []
        return found


@settings(max_examples=60)
@given(
    st.sampled_from((256, 512, 1024, 4096)),
    st.lists(st.one_of(st.none(), st.integers(0, 15)), min_size=1, max_size=60),
)
def test_any_sequence_of_records_and_drains_is_as_the_model(ring: int, steps: list[int | None]) -> None:
    """None drains; a number is a set of clauses that fire, each with a record of another size."""
    guest = Machine(SCRIPT + FAULTS, bufsize=ring)
    model = Model(ring)
    sizes = [RECORD_HEADER.size + (clause.record.size if clause.record else 0) for clause in guest.program.clauses]
    for number, step in enumerate((*steps, None)):
        if step is None:
            found = guest.drain()
            assert [(r.clause, r.fault) for r in found] == model.drain()
            continue
        fired = guest.fire(rdi=step, rsi=number)
        assert (fired.fault, fired.bad) == (0, ())
        for clause in range(3):
            if step & 1 << clause:
                model.write(sizes[clause], (clause, 0))
        if step & 8:
            _fault(model, sizes[3])
        assert guest.word(HeaderWord.HEAD) == model.head
        assert guest.word(HeaderWord.PRINCIPAL_DROPS) == model.drops


def _fault(model: Model, size: int) -> None:
    """The record's room is looked for first; without it the clause does not run, so it cannot fault either."""
    drops = model.drops
    model.write(size, (-1, 0))
    if model.drops == drops:
        model.waiting.pop()
        model.head -= size
        model.write(RECORD_HEADER.size + FAULT_WORDS.size, (3, 4))


def test_a_ring_is_filled_exactly() -> None:
    guest = Machine("fbt::: { trace(arg0); }", bufsize=256)  # records of 32 bytes
    for n in range(11):
        guest.fire(rdi=n)
    assert guest.word(HeaderWord.PRINCIPAL_DROPS) == 3
    assert [int.from_bytes(r.payload, "little") for r in guest.drain()] == list(range(8))
    assert guest.word(HeaderWord.HEAD) == guest.word(HeaderWord.TAIL) == 256
    guest.fire(rdi=99)
    assert [r.payload[0] for r in guest.drain()] == [99]
    assert guest.word(HeaderWord.PRINCIPAL_DROPS) == 3


def test_a_large_record_fits_once_the_ring_is_read() -> None:
    """More than half of the ring: behind anything that lies in the middle there is room only after a pad."""
    guest = Machine(SCRIPT, bufsize=512)  # 32, 112 and 272 bytes
    for n in range(8):
        guest.fire(rdi=1, rsi=n)
    guest.drain()  # 256 bytes to the end, 256 from the start
    found = []
    for _ in range(3):
        guest.fire(rdi=4, rsi=5)
        found.append([r.clause for r in guest.drain()])
    assert found == [[], [2], [2]]
    assert guest.word(HeaderWord.PRINCIPAL_DROPS) == 1


def test_a_record_larger_than_the_ring_is_a_drop() -> None:
    guest = Machine(SCRIPT, bufsize=256)
    for n in range(5):
        guest.fire(rdi=4)
        assert guest.word(HeaderWord.PRINCIPAL_DROPS) == n + 1
    assert guest.drain() == []
    guest.fire(rdi=1)
    assert [r.clause for r in guest.drain()] == [0]


def test_without_a_ring_every_record_is_a_drop() -> None:
    guest = Machine(SCRIPT + FAULTS, bufsize=0)
    before = guest.memory()
    fired = guest.fire(rdi=15)
    assert (fired.fault, fired.bad) == (0, ())
    assert guest.word(HeaderWord.PRINCIPAL_DROPS) == 4
    guest.set_word(HeaderWord.PRINCIPAL_DROPS, 0)
    assert guest.memory() == before


def test_positions_go_beyond_32_bits() -> None:
    guest = Machine(SCRIPT, bufsize=256)
    far = (1 << 32) - 64
    guest.set_word(HeaderWord.HEAD, far)
    guest.set_word(HeaderWord.TAIL, far)
    for n in range(20):
        guest.fire(rdi=1, rsi=n)
        assert [r.payload[0] for r in guest.drain()] == [n]
    assert guest.word(HeaderWord.HEAD) == far + 20 * 32


def test_fill_ends_tracing_at_the_first_record_without_room() -> None:
    guest = Machine("fbt::: { trace(arg0); } fbt::: { @ = count(); }", bufsize=256, policy="fill")
    for n in range(20):
        assert guest.fire(rdi=n).fault == 0
    assert guest.activity == 1 and guest.word(HeaderWord.FILLED) == 1
    assert guest.word(HeaderWord.PRINCIPAL_DROPS) == 0
    assert [int.from_bytes(r.payload, "little") for r in guest.drain()] == list(range(8))


@settings(max_examples=60)
@given(st.sampled_from((128, 256, 1024)), st.lists(st.integers(1, 7), min_size=1, max_size=80))
def test_ring_keeps_the_latest(size: int, steps: list[int]) -> None:
    """Records of three sizes: what is left is the end of what was written, and as much of it as has room."""
    guest = Machine(SCRIPT, bufsize=size, policy="ring")
    sizes = [RECORD_HEADER.size + (clause.record.size if clause.record else 0) for clause in guest.program.clauses]
    written: list[tuple[int, int]] = []
    for number, step in enumerate(steps):
        fired = guest.fire(rdi=step, rsi=number)
        assert (fired.fault, fired.bad) == (0, ())
        written += [(c, number) for c in range(3) if step & 1 << c and sizes[c] <= size]
    drops = sum(bool(step & 1 << c) and sizes[c] > size for step in steps for c in range(3))
    assert guest.word(HeaderWord.PRINCIPAL_DROPS) == drops
    found = [(r.clause, r.fault) for r in guest.drain()]
    assert found == [(c, 0) for c, _ in written][len(written) - len(found) :]
    possible = sum(sizes[c] for c, _ in written)
    largest = max(s for s in sizes if s <= size)
    assert sum(sizes[c] for c, _ in found) > min(possible - 1, size - 2 * largest - 8)
