"""Register layouts: by size, by the stub's description, and back to bytes."""

from __future__ import annotations

import pytest

from probekit.errors import ProtocolError
from probekit.target.register_layout import CORE, changes, decode, encode, layout_from_xml, layout_of_size


@pytest.mark.parametrize(
    ("size", "name", "number", "offset"),
    [
        (608, "rip", 16, 128),
        (608, "gs_base", 25, 172),
        (608, "efer", 32, 228),
        (608, "mxcsr", 65, 604),
        (164, "gs", 23, 160),
    ],
)
def test_a_known_size_has_its_registers_in_their_places(size: int, name: str, number: int, offset: int) -> None:
    layout = layout_of_size(size)
    slot = next(slot for slot in layout.slots if slot.name == name)
    assert (slot.number, slot.offset) == (number, offset)
    assert layout.size == size


def test_an_unknown_size_has_the_core() -> None:
    layout = layout_of_size(200)
    assert tuple(slot.name for slot in layout.slots) == CORE
    assert layout.size == 200
    with pytest.raises(ProtocolError):
        layout_of_size(163)


def test_round_trip_changes_only_what_was_named() -> None:
    layout = layout_of_size(608)
    raw = bytes(i % 251 for i in range(608))
    regs = decode(layout, raw)
    assert encode(layout, regs) == raw
    changed = encode(layout, regs.replace(rax=1, cs=0x33))
    assert changes(layout, raw, changed) == [(0, (1).to_bytes(8, "little")), (18, (0x33).to_bytes(4, "little"))]
    with pytest.raises(KeyError):
        regs.replace(eax=1)
    with pytest.raises(ProtocolError):
        decode(layout, raw[:-1])
    with pytest.raises(ProtocolError):
        encode(layout_of_size(164), regs)


def _xml(names: list[tuple[str, int]]) -> str:
    return "".join(f'<reg name="{name}" bitsize="{bits}" type="x"/>\n' for name, bits in names)


def test_the_stubs_own_description_gives_the_layout() -> None:
    core = [(name, 64 if i < 17 else 32) for i, name in enumerate(CORE)]
    layout = layout_from_xml(_xml([*core, ("fs_base", 64), ("new_one", 512)]))
    assert layout is not None and layout.size == 164 + 8 + 64
    assert layout_from_xml(_xml(core[1:])) is None
    assert layout_from_xml(_xml([("rax", 32), *core[1:]])) is None
    assert layout_from_xml('<reg name="rax" bitsize="many"/>') is None
    assert layout_from_xml('<reg name="rax" bitsize="64" regnum="7"/>') is None
    assert layout_from_xml("") is None
