"""Our data memory: what is where, and that nothing overlaps."""

from __future__ import annotations

import struct

import pytest

from probekit.buffers.layout import BLOCK_MAGIC, HeaderWord
from probekit.codegen.context import SITE_ENTRY_SIZE, SITE_FIELDS
from tests.codegen.built_program import Function
from tests.codegen.emulated_kernel import DATA
from tests.codegen.machine import Machine

EVERYTHING = """
int64_t x; int y; this int z;
fbt::: /arg0/ { x++; y = arg1; this->z = 1; trace(arg0 ? probefunc : "none"); @[execname] = count(); trace(id); }
fbt::: { trace("none"); trace(arg1 ? "a constant that is longer than sixteen bytes" : ""); @q = quantize(x); }
"""


def test_regions_follow_one_another() -> None:
    guest = Machine(EVERYTHING, [Function()] * 3)
    plan = guest.plan
    assert sorted(place.offset for place in plan.storage.globals_.values()) == [8, 16]
    assert plan.storage.size <= plan.sites
    assert plan.strings == plan.sites + 3 * SITE_ENTRY_SIZE
    assert plan.strings < plan.sites + len(plan.head) <= plan.blocks
    assert plan.blocks % 4096 == plan.block_size % 4096 == 0
    assert plan.block(1) - plan.block(0) == guest.layout.size
    assert plan.size == plan.blocks + 2 * guest.layout.size
    layout = guest.layout
    ends = [layout.header_words * 8]
    for store in layout.stores:
        assert store.offset >= ends[-1]
        ends.append(store.offset + store.size)
    assert ends[-1] <= layout.ring_offset
    assert layout.ring_offset + layout.ring_size <= layout.size


def test_the_pool() -> None:
    """Constants once each, NUL-terminated, and 16 bytes of zeros or text at least."""
    guest = Machine(EVERYTHING, [Function()] * 3)
    plan = guest.plan
    for text, offset in plan.constants.items():
        stored = plan.head[plan.strings - plan.sites + offset :]
        assert stored.startswith(text + b"\0")
        assert stored[: max(16, len(text))].rstrip(b"\0") == text
        assert len(stored) >= 16
    assert plan.constants[b""] == 0
    assert plan.head.count(b"none\0") == 1


def test_the_site_table() -> None:
    guest = Machine(EVERYTHING, [Function()] * 3)
    plan = guest.plan
    for site in guest.sites:
        entry = plan.head[site.number * SITE_ENTRY_SIZE :][:SITE_ENTRY_SIZE]
        fields = {name: struct.unpack_from("<I", entry, at)[0] for name, at in SITE_FIELDS.items()}
        assert (fields["offset"], fields["id"]) == (site.offset, site.probe.id)
        for name, text in (("probefunc", site.probe.name.function), ("probeprov", "fbt"), ("probename", "entry")):
            assert plan.head[plan.strings - plan.sites + fields[name] :].startswith(text.encode() + b"\0")


@pytest.mark.parametrize(
    ("text", "table", "names"),
    [
        ("fbt::: { @ = count(); }", False, False),
        ("fbt::: { trace(probefunc); @[probefunc, execname] = count(); }", False, False),
        ("fbt::: { probefunc; trace(1); }", False, False),
        ("fbt::: { trace(id); }", True, False),
        ('fbt::: /probefunc == "f0"/ { @ = sum(1); }', True, True),
    ],
)
def test_only_what_is_asked_for(text: str, table: bool, names: bool) -> None:
    guest = Machine(text, [Function()] * 5)
    assert guest.plan.strings - guest.plan.sites == (5 * SITE_ENTRY_SIZE if table else 0)
    assert (b"vmlinux\0" in guest.plan.head) == names


def test_a_block_begins_with_the_magic_word() -> None:
    guest = Machine("fbt::: { @ = sum(1); }")
    guest.fire()
    assert guest.word(HeaderWord.MAGIC) == BLOCK_MAGIC
    assert guest.read(DATA + guest.plan.block(0), 4096) == bytes(4096)  # another CPU's


def test_long_names_are_cut() -> None:
    guest = Machine("fbt::: { trace(arg0 ? probefunc : probename); }", [Function()])
    assert guest.plan.head[guest.plan.strings :].endswith(b"\0")
