"""C types: layouts, sizes and declarations, each bounded whatever the types say of themselves."""

from __future__ import annotations

import pytest

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CArray, CEnum, CInt, CPointer, display, sizeof, strip

from .fakes import BtfWriter, sample_btf


def test_a_struct_has_its_members_in_their_places() -> None:
    task = Btf(sample_btf().data()).struct("task")
    places = {field.name: (field.offset, field.bit_shift, field.bit_size, field.size) for field in task.fields()}
    assert places == {
        "next": (0, 0, None, 8),
        "comm": (8, 0, None, 16),
        "low": (24, 0, None, 4),
        "flag_a": (28, 0, 1, 4),
        "flag_b": (28, 1, 3, 4),
        "whole": (24, 0, None, 4),
        "pid": (32, 0, None, 4),
    }
    assert task.field("flag_b").bit_size == 3
    assert task.find_field("nothing") is None
    with pytest.raises(SymbolError, match="no member nothing"):
        task.field("nothing")


def test_each_kind_of_type_is_made_and_found_by_name() -> None:
    btf = Btf(sample_btf().data())
    task = btf.struct("task")
    target = task.field("next").type
    assert isinstance(target, CPointer) and target.target is task
    comm = task.field("comm").type
    assert isinstance(comm, CArray) and comm.element == CInt("char", 1, True)
    assert isinstance(strip(task.field("pid").type), CInt)
    function = btf.function("do_it")
    assert function is not None and function.variadic and [param.name for param in function.params] == ["task"]
    assert display(function) == "int (struct task *, ...)"
    color = btf.find("enum", "color")
    assert isinstance(color, CEnum) and [(v.name, v.value) for v in color.values] == [("RED", 0), ("GREEN", -1)]
    assert btf.constant("BIG") == 1 | 2 << 32 and btf.constant("GREEN") == -1
    assert btf.constant("NOT") is None and btf.function("task") is None
    assert "task" in set(btf.names("struct"))
    with pytest.raises(SymbolError, match="no struct color"):
        btf.struct("color")


def test_cycles_and_wild_numbers_are_refused() -> None:
    w = BtfWriter()
    w.raw("loop", 8, 0, 2)
    w.raw("loop2", 8, 0, 1)
    w.array(3, 0xFFFFFFFF)
    w.struct("self", 8, [("", 4, 0), ("", 4, 0), ("", 4, 0)])
    w.raw("", 13, 3, 5, *[w.string("a"), 5] * 3)
    w.raw("", 18, 0, 6)
    w.ptr(6)
    btf = Btf(w.data())
    for call in (
        lambda: strip(btf.typedef("loop")),
        lambda: sizeof(btf.type(3)),
        lambda: btf.struct("self").find_field("x"),
        lambda: list(btf.struct("self").fields()),
        lambda: btf.type(6),
        lambda: btf.type(7),
        lambda: btf.type(99),
    ):
        with pytest.raises(SymbolError):
            call()
    assert len(display(btf.type(5))) < 2000


def test_an_enum_with_a_negative_value_is_signed() -> None:
    made = Btf(sample_btf().data()).find("enum", "color")
    assert isinstance(made, CEnum) and made.signed
