"""BTF's sections: what is cut off, damaged or does not fit is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.btf_sections import BtfIndex, BtfKind, BtfSections

from .fakes import BtfWriter, sample_btf


def test_the_index_is_kept_as_bytes() -> None:
    data = sample_btf().data()
    made = Btf(data)
    again = Btf(data, index=BtfIndex.unpack(made.index.pack()))
    assert again.index == made.index and again.type_count == made.type_count
    assert [f.offset for f in again.struct("task").fields()] == [f.offset for f in made.struct("task").fields()]
    for wrong in (b"", b"abc", made.index.pack()[:-4], made.index.pack() + bytes(4)):
        with pytest.raises(ValueError):
            BtfIndex.unpack(wrong)
    with pytest.raises(SymbolError, match="do not fit"):
        Btf(BtfWriter().data(), index=made.index)


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(SymbolError):
        Btf(data)


_HEADER = struct.Struct("<HBBIIIII")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 0xEB9E, "not BTF"),
        (1, 2, "not BTF"),
        (3, 23, "do not fit"),
        (5, 1 << 30, "do not fit"),
        (5, 6, "do not fit"),
        (7, 1 << 30, "do not fit"),
        (4, 1 << 30, "do not fit"),
        (6, 1 << 30, "do not fit"),
    ],
)
def test_a_header_that_does_not_fit_its_data_is_refused(place: int, value: int, message: str) -> None:
    data = sample_btf().data()
    words = list(_HEADER.unpack_from(data))
    words[place] = value
    with pytest.raises(SymbolError, match=message):
        BtfSections(_HEADER.pack(*words) + data[_HEADER.size :])


def test_a_type_that_is_cut_off_or_of_an_unknown_kind_is_refused() -> None:
    data = sample_btf().data()
    words = list(_HEADER.unpack_from(data))
    words[5] -= 4
    with pytest.raises(SymbolError, match="cut off"):
        BtfSections(_HEADER.pack(*words) + data[_HEADER.size :])
    writer = BtfWriter()
    writer.raw("", 31, 0, 0)
    with pytest.raises(SymbolError, match="unknown kind 31"):
        BtfSections(writer.data())


def test_strings_are_found_here_or_in_the_base_and_nowhere_else() -> None:
    base = BtfSections(sample_btf().data())
    writer = BtfWriter(first_id=base.type_count, first_string=base.string_size)
    writer.ptr(8)
    own = writer.string("module_thing")
    split = BtfSections(writer.data(), base)
    assert split.string(own) == "module_thing" and split.string_offset("module_thing") == own
    assert split.string(split.string_offset("comm")) == "comm"
    assert split.string_offset("absent") == -1
    with pytest.raises(SymbolError, match="outside"):
        split.string(split.string_size)


def test_a_type_number_that_does_not_exist_is_refused() -> None:
    sections = BtfSections(sample_btf().data())
    assert sections.kind(1) == BtfKind.INT
    for number in (0, sections.type_count, -1):
        with pytest.raises(SymbolError, match="does not exist"):
            sections.kind(number)


def test_enumerations_are_found_by_a_word_of_theirs() -> None:
    sections = BtfSections(sample_btf().data())
    offset = sections.string_offset("GREEN")
    (found,) = sections.enums_with_word(offset)
    assert sections.kind(found) == BtfKind.ENUM
    assert list(sections.enums_with_word(0x7EADBEEF)) == []
