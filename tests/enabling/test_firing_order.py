"""Who fires first where several probes share a place."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from probekit.enabling import firing_order
from probekit.enabling.firing_order import by_address
from probekit.enabling.sites import EnabledSite
from probekit.patch.sites import EntrySite
from probekit.probe.names import ProbeName
from probekit.providers.api import GuestKind, Probe, ProbeKind

KINDS: tuple[ProbeKind, ...] = get_args(GuestKind)


def site(number: int, kind: ProbeKind, addr: int) -> EnabledSite:
    probe = Probe(number, ProbeName("p", "m", "f", "n"), kind)
    return EnabledSite(number, probe, EntrySite(addr, b"", addr), (), 0)


def test_every_kind_of_probe_in_a_guest_has_its_place_in_the_order() -> None:
    assert sorted(firing_order._ORDER) == sorted(KINDS)


def test_a_system_call_encloses_its_function_and_the_function_its_instructions() -> None:
    kinds: tuple[ProbeKind, ...] = ("return", "instruction", "sysret", "entry", "syscall")
    (members,) = by_address([site(n, kind, 0x10) for n, kind in enumerate(kinds)]).values()
    assert [m.probe.kind for m in members] == ["syscall", "entry", "instruction", "return", "sysret"]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), max_size=12))
def test_every_site_is_there_once_and_equals_keep_their_order(places: list[tuple[ProbeKind, int]]) -> None:
    sites = [site(n, *place) for n, place in enumerate(places)]
    found = by_address(sites)
    assert sorted(s.number for members in found.values() for s in members) == list(range(len(sites)))
    assert all(member.site.addr == addr for addr, members in found.items() for member in members)
    for members in found.values():
        for kind in KINDS:
            numbers = [m.number for m in members if m.probe.kind == kind]
            assert numbers == sorted(numbers)
