"""BTF: layouts read back; cycles, wild numbers and cut data end in SymbolError."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CPointer, CStruct, display, sizeof, strip

from .fakes import BtfWriter


def _sample() -> BtfWriter:
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


def test_a_modules_types_lie_on_top_of_the_kernels() -> None:
    base = Btf(_sample().data())
    w = BtfWriter(first_id=base.type_count, first_string=base.string_size)
    own = w.ptr(8)
    w.struct("module_thing", 16, [("owner", own, 0)])
    split = Btf(w.data(), base=base)
    owner = split.struct("module_thing").field("owner").type
    assert isinstance(owner, CPointer) and owner.target is base.struct("task")
    assert split.struct("task") is base.struct("task")
    assert split.constant("BIG") == base.constant("BIG")


def _touch(btf: Btf) -> None:
    """Use everything a caller may."""
    for type_id in range(btf.type_count):
        made = btf.type(type_id)
        display(made)
        sizeof(made)
        strip(made)
        if isinstance(made, CStruct):
            made.find_field("no.such")
            for number, _ in enumerate(made.fields()):
                if number > 1000:
                    break
    btf.constant("x")
    for kind in ("struct", "func", "typedef"):
        for name in btf.names(kind):
            assert name.isprintable()


@settings(max_examples=300, deadline=3000)
@given(st.lists(st.tuples(st.integers(24, 1 << 16), st.integers(0, 255)), min_size=1, max_size=12))
def test_damaged_types_are_refused(edits: list[tuple[int, int]]) -> None:
    data = bytearray(_sample().data())
    for at, value in edits:
        data[24 + at % (len(data) - 24)] = value
    btf = None
    try:
        btf = Btf(bytes(data))
        _touch(btf)
    except SymbolError:
        return


def test_a_hostile_name_is_escaped() -> None:
    w = BtfWriter()
    w.raw("evil\x1b[31m", 8, 0, 0)
    assert list(Btf(w.data()).names("typedef")) == ["evil\\x1b[31m"]
