"""Which functions are probes, and by which names."""

from __future__ import annotations

from itertools import count

import pytest

from probekit.kernel.symbols import KernelSymbol
from probekit.probe.names import ProbeDescription
from probekit.providers.fbt import FbtProvider
from probekit.providers.function_table import function_table
from probekit.providers.profile import ProfileProvider, period_ns
from probekit.providers.registry import make_registry

BASE = 0xFFFFFFFF81000000


def _symbols(*rows: tuple[int, str, str, str]) -> list[KernelSymbol]:
    """``(offset, type, name, module)``; each ends where the next begins."""
    ends = [*(row[0] for row in rows[1:]), rows[-1][0] + 16]
    return [
        KernelSymbol(addr=BASE + offset, size=max(end - offset, 1), name=name, type_char=letter, module=module)
        for (offset, letter, name, module), end in zip(rows, ends, strict=True)
    ]


TABLE = function_table(
    _symbols(
        (0, "T", "vfs_read", ""),
        (32, "t", "alias_of_write", ""),
        (32, "T", "vfs_write", ""),
        (64, "T", "__ia32_sys_close", ""),
        (64, "T", "__x64_sys_close", ""),
        (96, "t", "copy", ""),
        (112, "t", "copy", ""),
        (128, "t", "copy.constprop.0", ""),
        (144, "t", "vfs_read.cold", ""),
        (160, "t", "copy.constprop.0.cold.3", ""),
        (4096, "t", "copy", "null_blk"),
    )
)
PROVIDER = FbtProvider(TABLE, 4)


def _found(text: str) -> list[tuple[str, str, str]]:
    provider, module, function, name = text.split(":")
    description = ProbeDescription(provider, module, function, name)
    return [(p.name.module, p.name.function, p.name.name) for p in PROVIDER.match(description)]


def test_one_probe_for_one_address_by_its_best_name() -> None:
    assert [f.name for f in TABLE if f.addr == BASE + 32] == ["vfs_write"]
    assert _found("fbt::vfs_write:entry") == _found("fbt::alias_of_write:entry") == [("vmlinux", "vfs_write", "entry")]


def test_a_system_call_by_its_short_name() -> None:
    for text in (
        "fbt::sys_close:entry",
        "fbt::__x64_sys_close:entry",
        "fbt::sys_*:entry",
        "fbt::__ia32_sys_close:entry",
    ):
        assert _found(text) == [("vmlinux", "__x64_sys_close", "entry")], text


def test_cold_parts_belong_to_their_function() -> None:
    assert _found("fbt::*cold*:") == []
    by_name = {f.name: f for f in TABLE}
    assert by_name["vfs_read"].cold == ((BASE + 144, BASE + 160),)
    assert len(by_name["copy.constprop.0"].cold) == 1


def test_duplicates_are_probes_of_their_own() -> None:
    assert len(_found("fbt::copy:entry")) == 3
    assert _found("fbt:null_blk:copy:") == [("null_blk", "copy", "entry"), ("null_blk", "copy", "return")]
    assert _found("fbt::copy.constprop.0:entry") == [("vmlinux", "copy.constprop.0", "entry")]


def test_ids_name_probes_and_stay() -> None:
    probes = list(PROVIDER.match(ProbeDescription("fbt", "", "", "")))
    assert [p.id for p in probes] == list(range(4, PROVIDER.end_id))
    assert all(PROVIDER.by_id(p.id) == p for p in probes)
    assert PROVIDER.by_id(PROVIDER.end_id) is None and PROVIDER.by_id(3) is None
    assert [p.id for p in make_registry(TABLE).match(ProbeDescription(probe_id=5))] == [5]


def test_init_text_is_gone() -> None:
    left = function_table(_symbols((0, "T", "a", ""), (16, "T", "b", ""), (32, "T", "c", "")), [(BASE + 16, BASE + 32)])
    assert [f.name for f in left] == ["a", "c"]


def test_ticks() -> None:
    wanted = {"tick-1s": 10**9, "tick-100ms": 10**8, "tick-10": 10**8, "tick-5hz": 2 * 10**8, "tick-2min": 12 * 10**10}
    wanted |= {"tick-5000": 200_000, "profile-1": 10**9, "profile-200us": 200_000}
    assert {name: period_ns(name) for name in wanted} == wanted
    for bad in (
        "tick-0",
        "tick-",
        "tick-1x",
        "tick-5001",
        "tick-1ns",
        "tick--1s",
        "tick-1.5s",
        "profile-199us",
        "tock-1",
    ):
        assert period_ns(bad) is None, bad


def test_a_tick_exists_once_it_is_named() -> None:
    provider = ProfileProvider(count(100))
    standard = list(provider.match(ProbeDescription("profile", "", "", "tick-*")))
    assert [p.name.name for p in standard] == [f"tick-{n}" for n in (1, 10, 100, 500, 1000, 5000)]
    (probe,) = provider.match(ProbeDescription("", "", "", "tick-3s"))
    assert probe.id == 113 and probe.period_ns == 3 * 10**9
    assert list(provider.match(ProbeDescription("profile", "", "", "tick-*"))) == [*standard, probe]


@pytest.mark.parametrize("pattern", ["vfs_read", "sys_read", "nobody", "module_init_helper"])
def test_a_plain_name_finds_what_a_glob_of_it_finds(pattern: str) -> None:
    for module in ("", "vmlinux", "*", "ext4"):
        plain, globbed = (ProbeDescription("fbt", module, f, "") for f in (pattern, f"[{pattern[0]}]{pattern[1:]}"))
        assert list(PROVIDER.match(plain)) == list(PROVIDER.match(globbed))
