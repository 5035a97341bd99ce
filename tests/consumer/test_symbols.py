"""Addresses by name."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from probekit.consumer.symbols import SymbolAt, Symbols, probe_field
from probekit.probe.names import ProbeName

BASE = 0xFFFFFFFF81000000
KNOWN = Symbols({BASE: SymbolAt("vmlinux", "start", 0), BASE + 4: SymbolAt("ext4", "ext4_read", 4)}.get)


def test_an_address_with_its_offset_and_without() -> None:
    assert KNOWN.address(BASE) == "vmlinux`start"
    assert KNOWN.address(BASE + 4) == "ext4`ext4_read+0x4"
    assert KNOWN.address(BASE + 8) == "0xffffffff81000008"
    assert KNOWN.address(BASE - (1 << 64)) == "vmlinux`start"  # a signed integer is the same address


def test_each_function_shows_its_part() -> None:
    assert KNOWN.named("sym", BASE + 4) == KNOWN.named("func", BASE + 4) == "ext4`ext4_read"
    assert KNOWN.named("mod", BASE + 4) == "ext4"
    assert KNOWN.named("usym", BASE) == KNOWN.named("umod", BASE) == "0xffffffff81000000"


def test_without_a_guest_addresses_are_shown_as_they_are() -> None:
    assert Symbols().address(BASE) == Symbols().named("mod", BASE) == "0xffffffff81000000"


def test_a_stack_ends_at_the_first_zero() -> None:
    data = struct.pack("<4Q", BASE, BASE + 4, 0, BASE)
    assert KNOWN.frames(data) == ("vmlinux`start", "ext4`ext4_read+0x4")
    assert KNOWN.frames(data, user=True) == ("0xffffffff81000000", "0xffffffff81000004")


@given(st.binary(max_size=100))
def test_any_bytes_are_a_stack(data: bytes) -> None:
    assert len(KNOWN.frames(data)) <= len(data) // 8


def test_the_parts_of_a_probes_name() -> None:
    name = ProbeName("fbt", "vmlinux", "", "entry")
    shown = [probe_field(name, part) for part in ("probeprov", "probemod", "probefunc", "probename")]
    assert shown == ["fbt", "vmlinux", "", "entry"]
    assert probe_field(name, "anything else") == "fbt:vmlinux::entry"
