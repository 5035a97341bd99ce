"""Which instructions a description names."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from probekit.errors import ProbekitError
from probekit.probe.names import ProbeDescription
from probekit.providers import kinst
from probekit.providers.api import Function
from probekit.providers.function_table import FunctionTable
from probekit.providers.registry import make_registry

A, B = 0xFFFFFFFF81000000, 0xFFFFFFFF81000100
# nop5; push r12; pop r12; ret; int3 x 3        nop5; xor eax, eax; ret; int3; nop; ret
CODE = {A: bytes.fromhex("0f1f440000 4154 415c c3 cccccc"), B: bytes.fromhex("0f1f440000 31c0 c3 cc 90 c3")}
TABLE = FunctionTable(
    (
        Function(A, len(CODE[A]), "vfs_read", "vmlinux"),
        Function(B, len(CODE[B]), "__x64_sys_read", "vmlinux", ("sys_x",)),
    )
)


def read(ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
    return [CODE.get(addr) for addr, _ in ranges]


def names(text: str) -> list[str]:
    return [str(p.name) for p in make_registry(TABLE, read_code=read).match(ProbeDescription.parse(text))]


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("kinst::vfs_read:", "0 5 7 9"),
        ("kinst::vfs_read:*", "0 5 7 9"),
        ("kinst:vmlinux:vfs_read:5", "5"),
        ("kinst::vfs_read:6", "6"),  # exists, to be refused with the reason
        ("kinst::vfs_read:9999", "9999"),
        ("kinst::vfs_read:[57]", "5 7"),
        ("kinst::vfs_read:entry", ""),
        ("kinst::vfs_read:-1", ""),
        ("kinst::nothing:", ""),
        ("kinst:ext4:vfs_read:", ""),
        (":::0", ""),  # only a description that names the provider makes probes
        ("*::vfs_read:5", ""),
        ("kinst:::", ""),
    ],
)
def test_offsets(text: str, offsets: str) -> None:
    assert names(text) == [f"kinst:vmlinux:vfs_read:{offset}" for offset in offsets.split()]


def test_a_function_by_any_of_its_names() -> None:
    expected = [f"kinst:vmlinux:__x64_sys_read:{offset}" for offset in (0, 5, 7, 9, 10)]
    for name in ("__x64_sys_read", "sys_read", "sys_x"):
        assert names(f"kinst::{name}:") == expected
    assert names("kinst::*read:0") == ["kinst:vmlinux:vfs_read:0", "kinst:vmlinux:__x64_sys_read:0"]


def test_a_probe_keeps_its_number_and_has_no_other_ones() -> None:
    registry = make_registry(TABLE, read_code=read)
    (first,) = registry.match(ProbeDescription.parse("kinst::vfs_read:5"))
    (tick,) = registry.match(ProbeDescription.parse("tick-3s"))
    every = {p.name.name: p for p in registry.match(ProbeDescription.parse("kinst::vfs_read:"))}
    assert every["5"] is first and registry.by_id(first.id) is first
    assert len({p.id for p in (*every.values(), tick)}) == 5
    assert first.offset == 5 and first.kind == "instruction" and first.in_guest


def test_far_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinst, "MAX_PROBES", 5)
    with pytest.raises(ProbekitError, match="more than 5 instructions"):
        names("kinst::*read:")
