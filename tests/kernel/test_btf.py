"""BTF: layouts read back; cycles, wild numbers and cut data end in SymbolError."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CPointer, CStruct, display, sizeof, strip

from .fakes import BtfWriter, sample_btf


def test_a_modules_types_lie_on_top_of_the_kernels() -> None:
    base = Btf(sample_btf().data())
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
    data = bytearray(sample_btf().data())
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
