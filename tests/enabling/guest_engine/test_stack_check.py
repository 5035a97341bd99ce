"""Threads in the middle of a jump over several instructions, and the INT3 that such a site gets instead."""

from __future__ import annotations

from typing import Any

from probekit.enabling.guest_engine.stack_check import StackCheck, shared_jumps, with_int3
from probekit.enabling.sites import EnabledSite
from probekit.patch.detours import site_edit
from probekit.patch.sites import EntrySite, InsnSite
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe

F = 0xFFFFFFFF81000100
SHARED = InsnSite(F + 8, b"\x55\x53\x50\x51\x52", F, trap=False, first_size=1)  # push rbp; push rbx; push rax, rcx, rdx
NEXT = InsnSite(F + 0x20, b"\x55\x53\x50\x51\x52", F, trap=False, first_size=1)
ALONE = InsnSite(F + 0x40, b"\x48\x81\xec\x80\x00\x00\x00", F, trap=False)  # sub rsp, 0x80
STUB = 0xFFFFFFFFC0000000


def enabled(*sites: EntrySite | InsnSite) -> list[EnabledSite]:
    probe = Probe(1, ProbeName("kinst", "vmlinux", "f", "8"), "instruction")
    return [EnabledSite(n, probe, site, (0,), site.addr - F) for n, site in enumerate(sites)]


class StackSearch:
    """``words``: what is on the kernel's stacks and in the vCPUs' RIP."""

    def __init__(self, *words: int) -> None:
        self.words = words
        self.asked: list[tuple[int, int]] = []

    def addresses_in_use(self, target: Any, text: Any, start: int, end: int) -> set[int]:
        self.asked.append((start, end))
        return {word for word in self.words if start <= word < end}


def check(sites: list[InsnSite], stack_search: StackSearch) -> set[InsnSite]:
    found: Any = stack_search
    nothing: Any = None
    return StackCheck(sites, found, nothing, nothing).occupied()


def test_only_jumps_over_several_instructions_can_have_a_thread_inside() -> None:
    assert shared_jumps(enabled(SHARED, ALONE, SHARED, EntrySite(F, b"\x0f\x1f\x44\0\0", F))) == (SHARED,)


def test_a_thread_counts_in_the_middle_of_a_site_and_not_at_its_first_byte() -> None:
    for word, sites in ((F + 8, set()), (F + 9, {SHARED}), (F + 12, {SHARED}), (F + 13, set()), (F + 0x24, {NEXT})):
        assert check([SHARED, NEXT], StackSearch(word)) == sites


def test_all_sites_are_looked_for_at_once_and_nothing_is_read_without_any() -> None:
    stack_search = StackSearch()
    check([SHARED, NEXT], stack_search)
    assert stack_search.asked == [(F + 9, F + 0x25)]
    assert check([], stack_search) == set() and len(stack_search.asked) == 1


def test_an_occupied_site_gets_an_int3_and_the_others_keep_their_jump() -> None:
    edits = [site_edit(site, STUB) for site in (SHARED, NEXT)]
    first, second = with_int3(edits, {SHARED}, {SHARED.addr: STUB})
    assert first.new == b"\xcc" + SHARED.old[1:] and first.old == SHARED.old and second == edits[1]
