"""System calls as probes, and what other tracers call ours."""

from __future__ import annotations

import pytest

from probekit.kernel.symbols import KernelSymbol
from probekit.probe.names import ProbeDescription
from probekit.providers.function_table import function_table
from probekit.providers.registry import make_registry, resolve_alias

_BASE = 0xFFFFFFFF81000000
_NAMES = ("vfs_read", "__x64_sys_read", "__ia32_sys_read", "__x64_sys_openat", "do_read")
_TABLE = function_table([KernelSymbol(_BASE + 32 * n, 32, name, "T", "") for n, name in enumerate(_NAMES)])


def _named(text: str) -> list[str]:
    return [str(probe.name) for probe in make_registry(_TABLE).match(ProbeDescription.parse(text))]


def test_names() -> None:
    assert _named("syscall:::entry") == ["syscall:vmlinux:read:entry", "syscall:vmlinux:openat:entry"]
    assert _named("syscall::open*:") == ["syscall:vmlinux:openat:entry", "syscall:vmlinux:openat:return"]
    assert _named("syscall:ext4::") == _named("syscall::vfs_read:") == _named("syscall:::exit") == []
    # With no provider a system call is known by its name, and its function by the kernel's.
    assert _named("read:return") == ["syscall:vmlinux:read:return"]
    assert _named("sys_read:return") == ["fbt:vmlinux:__x64_sys_read:return"]


def test_one_probe_for_each_name_whatever_programs_call_it() -> None:
    names = (
        "__ia32_compat_sys_open",
        "__ia32_sys_open",
        "__ia32_sys_socketcall",
        "__x64_sys_open",
        "__x64_compat_sys_open",
    )
    rows = [KernelSymbol(_BASE + 32 * n, 32, name, "T", "") for n, name in enumerate(names)]
    rows += [KernelSymbol(_BASE + 0x1000, 32, name, "T", "") for name in ("__ia32_sys_getpid", "__x64_sys_getpid")]
    registry = make_registry(function_table(rows))
    found = list(registry.match(ProbeDescription.parse("syscall:::entry")))
    functions = [[f.name for f in probe.functions] for probe in found]
    assert [probe.name.function for probe in found] == ["socketcall", "open", "getpid"]
    assert functions == [
        ["__ia32_sys_socketcall"],
        ["__x64_sys_open", "__ia32_compat_sys_open", "__ia32_sys_open", "__x64_compat_sys_open"],
        ["__x64_sys_getpid"],
    ]
    assert [registry.by_id(probe.id) for probe in found] == found


def test_kinds_and_numbers() -> None:
    registry = make_registry(_TABLE)
    found = list(registry.match(ProbeDescription.parse("syscall:::")))
    assert [probe.kind for probe in found] == ["syscall", "sysret", "syscall", "sysret"]
    assert all(probe.in_guest and registry.by_id(probe.id) == probe for probe in found)
    assert registry.by_id(found[-1].id + 1) is None
    assert list(registry.match(ProbeDescription(probe_id=found[0].id))) == [found[0]]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sdt:sched::sched_switch", "tracepoint:sched::sched_switch"),
        ("rawtp:vmlinux::sched_switch", "tracepoint:::sched_switch"),
        ("rawtp:::sched_switch", "tracepoint:::sched_switch"),
        ("kprobe:vfs_read", "fbt::vfs_read:entry"),
        ("kretprobe:vfs_*", "fbt::vfs_*:return"),
        ("tracepoint:sched:sched_switch", "tracepoint:sched::sched_switch"),
        ("tracepoint:sched::sched_switch", "tracepoint:sched::sched_switch"),
        ("fbt::kprobe:entry", "fbt::kprobe:entry"),
        ("vfs_read:entry", "::vfs_read:entry"),
    ],
)
def test_what_others_write(written: str, meant: str) -> None:
    assert str(resolve_alias(ProbeDescription.parse(written))) == str(ProbeDescription.parse(meant))
