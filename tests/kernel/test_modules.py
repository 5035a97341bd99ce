"""Loaded modules: their text and symbols in every layout, and lists and tables that make no sense."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import ProbekitError, SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.memory import KernelMemory
from probekit.kernel.modules import list_modules, locate_module_btf, module_symbols

from .fakes import BtfWriter, FakeMemory

_AT, _HEAD = 0xFFFF888000001000, 0xFFFF888000000000
_STATE, _LIST, _NAME, _MEM, _KALLSYMS, _SIZE = 0, 16, 32, 96, 160, 192
_TEXT = 0xFFFFFFFFC0000000


def _btf(*, new: bool, typetab: bool = True) -> Btf:
    w = BtfWriter()
    word, number, char = w.int("long", 8), w.int("int", 4), w.int("char", 1, char=True)
    links = w.struct("list_head", 16, [("next", word, 0), ("prev", word, 64)])
    name = w.array(char, 56)
    if new:
        inner = w.struct("module_memory", 16, [("base", word, 0), ("size", number, 64)])
        text = ("mem", w.array(inner, 4), 8 * _MEM)
    else:
        text = ("core_layout", w.struct("module_layout", 16, [("base", word, 0), ("text_size", number, 64)]), 8 * _MEM)
    table = [("symtab", word, 0), ("num_symtab", number, 64), ("strtab", word, 128)]
    w.struct("mod_kallsyms", 32, [*table, *([("typetab", word, 192)] if typetab else [])])
    w.struct(
        "module",
        _SIZE,
        [
            ("state", number, 0),
            ("list", links, 8 * _LIST),
            ("name", name, 8 * _NAME),
            text,
            ("kallsyms", word, 8 * _KALLSYMS),
        ],
    )
    w.struct("btf", 24, [("data", word, 0), ("data_size", number, 64)])
    w.struct("btf_module", 40, [("list", links, 0), ("module", word, 128), ("btf", word, 192)])
    return Btf(w.data())


def _world(*names: bytes, state: int = 0) -> tuple[FakeMemory, bytearray]:
    """Modules of these names, the symbols of the first at ``_AT + 0x8000``."""
    data = bytearray(0x10000)

    def put(addr: int, form: str, *values: object) -> None:
        struct.pack_into("<" + form, data, addr - _HEAD, *values)

    nodes = [_AT + 0x200 * number + _LIST for number in range(len(names))]
    ring = [_HEAD, *nodes, _HEAD]
    for here, after in pairwise(ring):
        put(here, "Q", after)
    for number, name in enumerate(names):
        base = _AT + 0x200 * number
        put(base + _STATE, "I", state)
        put(base + _NAME, "56s", name)
        put(base + _MEM, "QI", _TEXT + 0x10000 * number, 0x1000)
    put(_AT + _KALLSYMS, "Q", _AT + 0x8000)
    put(_AT + 0x8000, "QQQQ", _AT + 0x8100, 3, _AT + 0x8400, _AT + 0x8500)
    rows = ((0, 0, 0, 0, 0, 0), (1, ord("d"), 0, 2, _TEXT + 0x40, 8), (3, ord("T"), 0, 1, _TEXT, 32))
    for number, row in enumerate(rows):
        put(_AT + 0x8100 + 24 * number, "IBBHQQ", *row)
    put(_AT + 0x8400, "8s", b"\0v\0init\0")
    put(_AT + 0x8500, "3s", b"adT")
    memory = FakeMemory((_HEAD, bytes(data)))
    return memory, memory.segments[_HEAD]


@pytest.mark.parametrize("new", [True, False], ids=["module_memory", "module_layout"])
def test_each_module_has_its_name_state_and_text(new: bool) -> None:
    memory, _ = _world(b"ext4", b"e\x1bvil")
    modules = list_modules(KernelMemory(memory), _btf(new=new), _HEAD)
    assert [(m.name, m.state, m.text_start, m.text_end) for m in modules] == [
        ("ext4", "live", _TEXT, _TEXT + 0x1000),
        ("e\\x1bvil", "live", _TEXT + 0x10000, _TEXT + 0x11000),
    ]


@pytest.mark.parametrize(("typetab", "sizes"), [(True, [8, 32]), (False, [0, 0])])
def test_the_symbols_are_those_that_the_kernel_shows(typetab: bool, sizes: list[int]) -> None:
    memory, _ = _world(b"ext4")
    kernel, btf = KernelMemory(memory), _btf(new=True, typetab=typetab)
    found = module_symbols(kernel, btf, list_modules(kernel, btf, _HEAD)[0])
    assert (found.module, list(found.names), found.types) == ("ext4", ["v", "init"], "dT")
    assert (list(found.addrs), list(found.sizes)) == ([_TEXT + 0x40, _TEXT], sizes)


def test_a_module_that_is_not_live_has_no_symbols_yet() -> None:
    memory, _ = _world(b"ext4", state=1)
    kernel, btf = KernelMemory(memory), _btf(new=True)
    (module,) = list_modules(kernel, btf, _HEAD)
    assert module.state == "coming" and list(module_symbols(kernel, btf, module).names) == []


def test_a_module_that_makes_no_sense_is_refused() -> None:
    for at, data in ((_NAME, bytes(56)), (_MEM + 8, b"\xff" * 4), (_MEM, b"\xff" * 8)):
        memory, raw = _world(b"ext4")
        raw[0x1000 + at : 0x1000 + at + len(data)] = data
        with pytest.raises(SymbolError, match="makes no sense"):
            list_modules(KernelMemory(memory), _btf(new=True), _HEAD)


def test_a_module_that_claims_too_many_symbols_is_refused() -> None:
    memory, raw = _world(b"ext4")
    raw[0x9008:0x900C] = b"\xff" * 4
    kernel, btf = KernelMemory(memory), _btf(new=True)
    with pytest.raises(SymbolError, match="claims 4294967295 symbols"):
        module_symbols(kernel, btf, list_modules(kernel, btf, _HEAD)[0])


def test_without_the_list_of_module_types_there_are_none() -> None:
    memory, _ = _world()
    assert locate_module_btf(KernelMemory(memory), Btf(BtfWriter().data()), _HEAD) == {}
    assert locate_module_btf(KernelMemory(memory), _btf(new=True), _HEAD) == {}


@given(st.lists(st.tuples(st.integers(0, 0x1000 - 8), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_damaged_modules_are_read_or_refused(edits: list[tuple[int, bytes]]) -> None:
    memory, raw = _world(b"ext4", b"xfs")
    for number, (at, data) in enumerate(edits):
        start = (0x1000, 0x9000)[number % 2] + at % 0x600
        raw[start : start + len(data)] = data
    kernel, btf = KernelMemory(memory), _btf(new=True)
    try:
        for module in list_modules(kernel, btf, _HEAD):
            assert module.name.isprintable()
            assert all(name.isprintable() for name in module_symbols(kernel, btf, module).names)
    except ProbekitError:
        return
