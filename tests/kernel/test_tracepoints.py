"""Tracepoints out of memory: both forms of the pointer table, systems by their events, and a guest that lies."""

from __future__ import annotations

import struct
from array import array

import pytest

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import display
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.memory import KernelMemory
from probekit.kernel.modules import Module
from probekit.kernel.symbols import SymbolTable
from probekit.kernel.tracepoints import (
    ProbeListLayout,
    Tracepoint,
    count_tracepoints,
    list_tracepoints,
    probe_list_layout,
    tracepoint_params,
)

from .fakes import BASE, BtfWriter, FakeMemory

PTRS = BASE + 0x1000
POINTS = BASE + 0x2000
NAMES = BASE + 0x3000
EVENTS = BASE + 0x4000
CLASSES = BASE + 0x5000
MODULE = BASE + 0x6000
FUNCS = BASE + 0x7000
SIZE = 32


def _btf(*, relative: bool, events: bool = True) -> Btf:
    w = BtfWriter()
    word, number = w.int("long unsigned int", 8, signed=False), w.int("int", 4)
    w.struct("tracepoint", SIZE, [("name", word, 0), ("funcs", word, 128)])
    w.struct("tracepoint_func", 24, [("func", word, 0), ("data", word, 64), ("prio", number, 128)])
    w.struct("module", 128, [("tracepoints_ptrs", word, 512), ("num_tracepoints", number, 576)])
    if events:
        w.struct("trace_event_call", 40, [("list", word, 0), ("class", word, 128), ("tp", word, 192)])
        w.struct("trace_event_class", 8, [("system", word, 0)])
    w.raw("tracepoint_ptr_t", 8, 0, number if relative else w.ptr(number))
    void = w.ptr(0)
    w.func("__traceiter_alpha", number, [("__data", void), ("count", number), ("what", word)])
    proto = w.raw("", 13, 2, 0, 0, void, 0, number)
    w.raw("btf_trace_beta", 8, 0, w.ptr(proto))
    return Btf(w.data())


def _symbols(count: int, size: int) -> SymbolTable:
    rows = [
        (BASE, "T", "_text"),
        (PTRS, "R", "__start___tracepoints_ptrs"),
        (PTRS + count * size, "R", "__stop___tracepoints_ptrs"),
        (EVENTS, "D", "ftrace_events"),
    ]
    return SymbolTable(RawSymbols(array("Q", [r[0] for r in rows]), [r[2] for r in rows], "".join(r[1] for r in rows)))


def _guest(names: list[bytes], *, relative: bool, loop: bool = False) -> FakeMemory:
    """Tracepoints of these names; the first two have events of class ``sched``, a third event has no tracepoint."""
    points, strings = bytearray(0x1000), bytearray(0x1000)
    pointers = bytearray()
    for place, name in enumerate(names):
        addr = POINTS + SIZE * place
        strings[64 * place : 64 * place + len(name)] = name
        struct.pack_into("<Q", points, SIZE * place, NAMES + 64 * place)
        if relative:
            pointers += struct.pack("<i", addr - (PTRS + len(pointers)))
        else:
            pointers += struct.pack("<Q", addr)
    events = bytearray(0x1000)
    calls = [EVENTS + 0x100 * n for n in (1, 2, 3)]
    for place, call in enumerate(calls):
        following = calls[place + 1] if place < 2 else (calls[0] if loop else EVENTS)
        tracepoint = POINTS + SIZE * place if place < 2 else NAMES
        struct.pack_into("<QQQQ", events, call - EVENTS, following, 0, CLASSES, tracepoint)
    struct.pack_into("<Q", events, 0, calls[0])
    classes = bytearray(0x1000)
    struct.pack_into("<Q", classes, 0, CLASSES + 64)
    classes[64:70] = b"sched\0"
    parts = ((PTRS, pointers), (POINTS, points), (NAMES, strings), (EVENTS, events), (CLASSES, classes))
    return FakeMemory(*((addr, bytes(data).ljust(0x1000, b"\0")) for addr, data in parts))


@pytest.mark.parametrize("relative", [True, False])
def test_names_systems_owners(relative: bool) -> None:
    btf, size = _btf(relative=relative), 4 if relative else 8
    blob = bytearray(128)
    struct.pack_into("<QI", blob, 64, PTRS + 3 * size, 1)
    module = Module("extra", MODULE, "live", BASE, BASE, bytes(blob))
    memory = KernelMemory(_guest([b"alpha", b"beta", b"gamma", b"of_module"], relative=relative))
    symbols = _symbols(3, size)
    assert count_tracepoints(symbols, [module], btf) == 4
    assert list_tracepoints(memory, symbols, [module], btf) == (
        Tracepoint(POINTS, "alpha", "sched"),
        Tracepoint(POINTS + SIZE, "beta", "sched"),
        Tracepoint(POINTS + 2 * SIZE, "gamma"),
        Tracepoint(POINTS + 3 * SIZE, "of_module", "", "extra", MODULE),
    )
    going = Module("extra", MODULE, "going", BASE, BASE, bytes(blob))
    assert count_tracepoints(symbols, [going], btf) == 3


def test_a_kernel_without_tracepoints_or_types_has_none() -> None:
    memory, symbols = KernelMemory(_guest([b"alpha"], relative=True)), _symbols(1, 4)
    empty = Btf(BtfWriter().data())
    assert count_tracepoints(symbols, [], None) == 0 == count_tracepoints(symbols, [], empty)
    assert list_tracepoints(memory, symbols, [], None) == () == list_tracepoints(memory, symbols, [], empty)
    (only,) = list_tracepoints(memory, symbols, [], _btf(relative=True, events=False))
    assert only == Tracepoint(POINTS, "alpha")
    assert probe_list_layout(None) is None is probe_list_layout(empty)


@pytest.mark.parametrize("name", [b"", b"x" * 64, b"with space", b"esc\x1b[2J", b"\xff\xfe", b"a:b"])
def test_a_name_that_is_none_keeps_its_place(name: bytes) -> None:
    names = [b"alpha", name.ljust(64, b"x") if len(name) == 64 else name, b"gamma"]
    found = list_tracepoints(KernelMemory(_guest(names, relative=True)), _symbols(3, 4), [], _btf(relative=True))
    assert [t.name for t in found][::2] == ["alpha", "gamma"]
    assert found[1].name == "" or len(name) == 64


def test_a_hostile_list_of_tracepoints_is_refused_or_bounded() -> None:
    btf = _btf(relative=True)
    with pytest.raises(SymbolError, match="more tracepoints"):
        count_tracepoints(_symbols(1 << 20, 4), [], btf)
    with pytest.raises(SymbolError, match="does not end"):
        list_tracepoints(KernelMemory(_guest([b"a"], relative=True, loop=True)), _symbols(1, 4), [], btf)
    wild = FakeMemory((PTRS, bytes(4096)), (EVENTS, struct.pack("<Q", EVENTS).ljust(4096, b"\0")))
    (only,) = list_tracepoints(KernelMemory(wild), _symbols(1, 4), [], btf)  # leads to zeros
    assert only.name == ""


def test_a_tracepoint_has_the_parameters_of_its_type() -> None:
    btf = _btf(relative=True)
    alpha = tracepoint_params(Tracepoint(1, "alpha"), btf)
    assert alpha is not None and [(p.name, display(p.type)) for p in alpha] == [
        ("count", "int"),
        ("what", "long unsigned int"),
    ]
    beta = tracepoint_params(Tracepoint(1, "beta"), btf)
    assert beta is not None and [display(p.type) for p in beta] == ["int"]
    assert tracepoint_params(Tracepoint(1, "gamma"), btf) is None
    assert tracepoint_params(Tracepoint(1, "alpha"), None) is None


def test_the_probes_that_are_registered_are_read() -> None:
    layout = probe_list_layout(_btf(relative=True))
    assert layout == ProbeListLayout(funcs=16, entry_size=24, function=0, data=8)
    points = bytearray(4096)
    struct.pack_into("<Q", points, 16, FUNCS)
    struct.pack_into("<Q", points, 2 * SIZE + 16, FUNCS + 4096 - 24)  # the array runs into an unmapped page
    lists = bytearray(4096)
    struct.pack_into("<QQQQQQQ", lists, 0, 0x11, 1, 10, 0x22, 2, 10, 0)
    struct.pack_into("<QQQ", lists, 4096 - 24, 0x33, 3, 0)
    memory = FakeMemory((POINTS, bytes(points)), (FUNCS, bytes(lists)))
    wanted = [POINTS, POINTS + SIZE, POINTS + 2 * SIZE, 0x5000]
    assert layout.registered(memory.read_many, wanted) == {
        POINTS: {(0x11, 1), (0x22, 2)},
        POINTS + SIZE: set(),
        POINTS + 2 * SIZE: {(0x33, 3)},
        0x5000: set(),
    }
    endless = FakeMemory((POINTS, bytes(points)), (FUNCS, b"\x11" * (1 << 20)))
    assert len(layout.registered(endless.read_many, [POINTS])[POINTS]) == 1
