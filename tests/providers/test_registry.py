"""All providers, asked as one."""

from __future__ import annotations

import pytest

from probekit.probe.names import ProbeDescription
from probekit.providers.registry import make_registry, resolve_alias


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sdt:sched::sched_switch", "tracepoint:sched::sched_switch"),
        ("rawtp:vmlinux::sched_switch", "tracepoint:::sched_switch"),
        ("rawtp:kvm::kvm_exit", "tracepoint:kvm::kvm_exit"),
        ("kprobe:vfs_read", "fbt::vfs_read:entry"),
        ("kretprobe:vfs_read", "fbt::vfs_read:return"),
        ("tracepoint:sched:sched_switch", "tracepoint:sched::sched_switch"),
        ("fbt::vfs_read:entry", "fbt::vfs_read:entry"),
        ("vfs_read:entry", "vfs_read:entry"),
    ],
)
def test_other_tracers_names_mean_the_same_probe(text: str, expected: str) -> None:
    assert resolve_alias(ProbeDescription.parse(text)) == ProbeDescription.parse(expected)


def test_without_a_guest_only_the_host_s_own_probes_exist() -> None:
    registry = make_registry(None)
    found = list(registry.match(ProbeDescription.parse(":::")))
    assert {probe.name.provider for probe in found} == {"dtrace", "profile"}
    assert not any(probe.in_guest for probe in found)


def test_each_probe_has_an_id_of_its_own_that_names_it() -> None:
    registry = make_registry(None)
    found = list(registry.match(ProbeDescription.parse(":::")))
    assert len({probe.id for probe in found}) == len(found)
    for probe in found:
        assert registry.by_id(probe.id) == probe
    assert registry.by_id(1 << 40) is None
