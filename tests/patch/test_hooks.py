"""Functions that the kernel itself calls: their frame, and the edits that switch markers on."""

from __future__ import annotations

from probekit.isa.decode import ENDBR64
from probekit.patch.edits import Edit
from probekit.patch.hooks import HOOK_PREFIX_SIZE, HOOK_SUFFIX_SIZE, MarkerHook, hook_stub, marker_edits

_STUB = 0xFFFFFFFFC0001000
_OPTIMIZED = MarkerHook(0x1000, 0, call=(0x1008, 0xAABB), state=0, loads=((0x5000, b"\xb0\x00"), (0x5002, b"\xb1\x00")))
_GENERIC = MarkerHook(0x2000, 7, call=(0x2008, 0), state=0x2010, loads=())


def test_a_function_begins_with_endbr64_and_ends_with_ret() -> None:
    code = hook_stub(b"\x90\x90")
    assert code == ENDBR64 + b"\x90\x90\xc3"
    assert len(code) == HOOK_PREFIX_SIZE + 2 + HOOK_SUFFIX_SIZE


def test_each_marker_is_pointed_at_its_own_function_before_it_is_switched_on() -> None:
    edits = marker_edits([(_OPTIMIZED, _STUB), (_GENERIC, _STUB + 16)])
    assert edits.pointers == (
        Edit(0x1008, (0xAABB).to_bytes(8, "little"), _STUB.to_bytes(8, "little")),
        Edit(0x2008, bytes(8), (_STUB + 16).to_bytes(8, "little")),
    )
    assert edits.switches == (Edit(0x2010, bytes(4), b"\1\0\0\0"),), "only the generic form has a switch"
    assert edits._fields == ("pointers", "switches", "loads"), "in the order in which they must be made"


def test_a_load_keeps_its_instruction_and_register_and_loads_one() -> None:
    assert marker_edits([(_OPTIMIZED, _STUB)]).loads == (
        Edit(0x5000, b"\xb0\x00", b"\xb0\x01"),
        Edit(0x5002, b"\xb1\x00", b"\xb1\x01"),
    )


def test_no_marker_makes_no_edit() -> None:
    assert marker_edits([]) == ((), (), ())
