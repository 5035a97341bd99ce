"""A fake memory source and writers of kernel data structures, for tests without a guest."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from probekit.errors import MemoryAccessError, UnsupportedError
from probekit.kernel.memory import MemoryCopy
from probekit.target.api import Regs

BASE = 0xFFFFFFFF81000000


class FakeMemory:
    """Segments of bytes; everything else is unmapped. Counts the batches asked for."""

    def __init__(self, *segments: tuple[int, bytes]) -> None:
        self.segments = {start: bytearray(data) for start, data in segments}
        self.batches = 0

    def read(self, addr: int, size: int) -> bytes:
        data = self._get(addr, size)
        if data is None:
            raise MemoryAccessError("fake", addr=addr, size=size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        self.batches += 1
        return [self._get(addr, size) for addr, size in ranges]

    def _get(self, addr: int, size: int) -> bytes | None:
        for start, data in self.segments.items():
            if start <= addr and addr + size <= start + len(data):
                return bytes(data[addr - start : addr - start + size])
        return None


@dataclass(frozen=True)
class KallsymsStyle:
    """One historical layout of the tables."""

    name: str
    new_order: bool
    encoding: str = "absolute_percpu"
    big: bool = True
    seq_size: int = 3
    align: int = 8


STYLES = (
    KallsymsStyle("v4.20", new_order=False, big=False, seq_size=0),
    KallsymsStyle("v6.1", new_order=False, seq_size=0),
    KallsymsStyle("v6.1-unsigned", new_order=False, seq_size=0, encoding="unsigned"),
    KallsymsStyle("v6.2-rc", new_order=False, seq_size=4),
    KallsymsStyle("v6.2", new_order=False),
    KallsymsStyle("v6.4", new_order=True),
    KallsymsStyle("v6.15", new_order=True, encoding="unsigned"),
    KallsymsStyle("v7.0", new_order=True, encoding="place"),
    KallsymsStyle("v7.0-align4", new_order=True, encoding="place", align=4),
)

Row = tuple[int, str, str]


def make_rows(seed: int, count: int, *, percpu: bool, long_names: bool) -> list[Row]:
    """Plausible symbols in address order, ``_text`` at BASE."""
    rng = random.Random(seed)
    words = ["sys", "read", "write", "init", "xfs", "tcp_", "__", "0123456789", "page", "Lock", ".isra.", "cfg"]

    def name() -> str:
        text = "".join(rng.choice(words) for _ in range(rng.randint(1, 4))) + str(rng.randint(0, 9))
        return (
            text + "".join(rng.choice("abcXYZ_.$") for _ in range(300))
            if long_names and not rng.randint(0, 9)
            else text
        )

    rows: list[Row] = []
    if percpu:
        rows += [(16 * i, "A", name()) for i in range(rng.randint(1, 20))]
    rows.append((BASE, "T", "_text"))
    addr = BASE
    while len(rows) < count:
        addr += rng.choice((0, 0, 16, 64, 1024))
        rows.append((addr, rng.choice("tTdDbBrRwV"), name()))
    return rows


def encode_kallsyms(
    rows: Sequence[Row], style: KallsymsStyle, *, start: int, lead: int = 64, seed: int = 0
) -> MemoryCopy:
    """The tables as scripts/kallsyms.c of that age lays them out, amid random bytes."""
    rng = random.Random(seed)
    tokens, encode = _tokens(rows)
    names, markers = bytearray(), []
    for number, (_, letter, name) in enumerate(rows):
        if number % 256 == 0:
            markers.append(len(names))
        code = encode(letter + name)
        size = len(code)
        names += bytes([size & 0x7F | 0x80, size >> 7]) if size > 0x7F and style.big else bytes([size])
        names += code
    table, index = bytearray(), []
    for token in tokens:
        index.append(len(table))
        table += token.encode() + b"\0"
    out = bytearray(rng.randbytes(lead & -8))

    def put(data: bytes) -> None:
        out.extend(bytes(-len(out) % style.align))
        out.extend(data)

    low = min((addr for addr, _, _ in rows if addr >= BASE), default=BASE)
    seqs = bytearray()
    for seq in sorted(range(len(rows)), key=lambda i: rows[i][2]):
        seqs += seq.to_bytes(style.seq_size, "big" if style.seq_size == 3 else "little") if style.seq_size else b""
    core = [struct.pack("<I", len(rows)), bytes(names), struct.pack(f"<{len(markers)}I", *markers)]
    token_parts = [bytes(table), struct.pack("<256H", *index)]

    def offsets(at: int) -> bytes:
        return b"".join(_offset(addr, style.encoding, low, at + 4 * i) for i, (addr, _, _) in enumerate(rows))

    def put_offsets() -> None:
        out.extend(bytes(-len(out) % style.align))
        out.extend(offsets(start + len(out)))
        if style.encoding != "place":
            put(struct.pack("<Q", low))

    if not style.new_order:
        put_offsets()
    for part in core:
        put(part)
    if not style.new_order and seqs:
        put(bytes(seqs))
    for part in token_parts:
        put(part)
    if style.new_order:
        put_offsets()
        put(bytes(seqs))
    out.extend(bytes(16))
    out.extend(rng.randbytes(64))
    return MemoryCopy(start, bytes(out))


def _offset(addr: int, encoding: str, low: int, place: int) -> bytes:
    if encoding == "place":
        return struct.pack("<i", addr - place)
    if encoding == "unsigned":
        return struct.pack("<I", addr - low)
    return struct.pack("<i", addr if addr < 1 << 31 else low - 1 - addr)


def _tokens(rows: Sequence[Row]):
    """256 tokens: used characters stand for themselves, spare codes for frequent pairs."""
    used = set("0123456789").union(*(letter + name for _, letter, name in rows))
    pairs = Counter(name[i : i + 2] for _, _, name in rows for i in range(len(name) - 1))
    frequent = iter([pair for pair, _ in pairs.most_common(200)])
    tokens = [chr(code) if chr(code) in used else next(frequent, "") for code in range(256)]
    codes = {token: code for code, token in enumerate(tokens) if token}

    def encode(text: str) -> bytes:
        out, at = bytearray(), 0
        while at < len(text):
            step = 2 if text[at : at + 2] in codes and len(text[at : at + 2]) == 2 else 1
            out.append(codes[text[at : at + step]])
            at += step
        return bytes(out)

    return tokens, encode


class BtfWriter:
    """Build BTF from code. Every method returns the new type's number."""

    def __init__(self, first_id: int = 1, first_string: int = 0) -> None:
        self._types: list[bytes] = []
        self._first_id = first_id
        self._first_string = first_string
        self._strings = bytearray(b"" if first_string else b"\0")
        self._known: dict[str, int] = {"": 0}

    def string(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = self._first_string + len(self._strings)
            self._strings += text.encode() + b"\0"
        return self._known[text]

    def raw(self, name: str, kind: int, vlen: int, size: int, *words: int, flag: bool = False) -> int:
        info = flag << 31 | kind << 24 | vlen
        self._types.append(struct.pack(f"<{3 + len(words)}I", self.string(name), info, size, *words))
        return self._first_id + len(self._types) - 1

    def next_id(self) -> int:
        return self._first_id + len(self._types)

    def int(self, name: str, size: int, *, signed: bool = True, char: bool = False) -> int:
        return self.raw(name, 1, 0, size, (signed | char << 1) << 24 | 8 * size)

    def ptr(self, to: int) -> int:
        return self.raw("", 2, 0, to)

    def array(self, of: int, count: int) -> int:
        return self.raw("", 3, 0, 0, of, 1, count)

    def struct(self, name: str, size: int, members: Sequence[tuple], *, union: bool = False) -> int:
        """``members``: (name, type, bit offset[, bit size])."""
        words = []
        for item, type_id, offset, *bits in members:
            words += [self.string(item), type_id, (bits[0] if bits else 0) << 24 | offset]
        return self.raw(name, 5 if union else 4, len(members), size, *words, flag=True)

    def func(self, name: str, result: int, params: Sequence[tuple[str, int]]) -> int:
        words = [word for item, type_id in params for word in (self.string(item), type_id)]
        proto = self.raw("", 13, len(params), result, *words)
        return self.raw(name, 12, 1, proto)

    def data(self) -> bytes:
        types, strings = b"".join(self._types), bytes(self._strings)
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


class FakeTarget(FakeMemory):
    """Enough of a Target to be opened: memory, one vCPU in 64-bit mode, a monitor that tells the IDT."""

    name = "fake"
    running = False

    def __init__(self, *segments: tuple[int, bytes], idt: int = 0, efer: int = 0xD01) -> None:
        super().__init__(*segments)
        self.idt = idt
        self.efer = efer

    def vcpus(self) -> tuple[int, ...]:
        return (1,)

    def regs(self, vcpu: int) -> Regs:
        return Regs(values={"rip": 0, "cs": 0x10, "cr3": 0x2000, "cr4": 0, "efer": self.efer}, raw=b"")

    def monitor(self, command: str) -> str:
        if not self.idt:
            raise UnsupportedError("no monitor", feature="monitor")
        return f"GDT=     0000000000000000 0000007f\nIDT=     {self.idt:016x} 00000fff\n"


def fake_kernel(*, data_symbols: bool = True, banner: bytes = b"Linux version 9.9.9-fake (x) #1 SMP\n") -> FakeTarget:
    """A small kernel: text, banner, notes, symbol table, BTF, interrupt table."""
    rodata = BASE + (2 << 20)
    note = struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes(range(20))
    w = BtfWriter()
    w.struct("thing", 8, [("x", w.int("int", 4), 0)])
    btf = w.data()
    page = bytearray(8192)
    page[64 : 64 + len(banner) + 1] = banner + b"\0"
    page[1024 : 1024 + len(note)] = note
    page[2048 : 2048 + len(btf)] = btf
    rows = [(BASE, "T", "_text"), (BASE, "T", "_stext")]
    rows += [(BASE + 64 * i, "t" if i % 3 else "T", f"func_{i}") for i in range(1, 700)]
    rows.append((BASE + (1 << 20), "T", "_etext"))
    if data_symbols:
        rows += [
            (rodata + 64, "R", "linux_banner"),
            (rodata + 1024, "R", "__start_notes"),
            (rodata + 1024 + len(note), "R", "__stop_notes"),
            (rodata + 2048, "R", "__start_BTF"),
            (rodata + 2048 + len(btf), "R", "__stop_BTF"),
        ]
    tables = encode_kallsyms(rows, STYLES[5], start=rodata + len(page)).data
    text = bytearray(b"\xcc" * (2 << 20))
    for addr, letter, _ in rows:
        if letter in "tT":
            text[addr - BASE : addr - BASE + 5] = bytes.fromhex("0f1f440000")
    rest = bytes(page) + tables
    idt = 0xFFFFFE0000000000
    handler = BASE + 0x4000
    gate = struct.pack("<HHBBHII", handler & 0xFFFF, 0x10, 0, 0x8E, handler >> 16 & 0xFFFF, handler >> 32, 0)
    return FakeTarget((BASE, bytes(text) + rest + bytes(-len(rest) % (2 << 20))), (idt, gate * 32), idt=idt)


def sample_btf() -> BtfWriter:
    """One type of each kind; ``struct task`` has all forms of members."""
    w = BtfWriter()
    integer = w.int("int", 4)
    char = w.int("char", 1, char=True)
    comm = w.array(char, 16)
    inner = w.struct("", 8, [("low", integer, 0), ("flag_a", integer, 32, 1), ("flag_b", integer, 33, 3)])
    either = w.struct("", 8, [("", inner, 0), ("whole", integer, 0)], union=True)
    task = 8  # forward reference to itself
    pointer = w.ptr(task)
    w.raw("pid_t", 8, 0, integer)
    assert w.struct("task", 64, [("next", pointer, 0), ("comm", comm, 64), ("", either, 192), ("pid", 7, 256)]) == task
    w.raw("color", 6, 2, 4, w.string("RED"), 0, w.string("GREEN"), 0xFFFFFFFF)
    w.raw("wide", 19, 1, 8, w.string("BIG"), 1, 2)
    w.func("do_it", integer, [("task", pointer), ("", 0)])
    w.raw("lost", 7, 0, 0)
    return w
