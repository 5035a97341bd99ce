"""From probes to places in live text, or the reason; and how much the journal takes to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pytest

from probekit.enabling.ecb import Ecb
from probekit.enabling.sites import EnabledSite, SiteSet, find_sites, journal_size
from probekit.enabling.syscall_returns import SystemCalls
from probekit.kernel.markers import CALL_OFFSET, STATE_OFFSET, Marker
from probekit.kernel.syscalls import COMPAT_CALL
from probekit.kernel.tracepoints import Tracepoint
from probekit.patch.hooks import MarkerHook, TracepointHook
from probekit.patch.refused_text import RefusedText
from probekit.patch.sites import NO_PAD, EntrySite, ExitSite, InsnSite, TextFacts
from probekit.probe.names import ProbeName
from probekit.providers.api import Function, Probe, ProbeKind

F, G, COLD = 0xFFFFFFFF81000000, 0xFFFFFFFF81008000, 0xFFFFFFFF8100C000
NOP5 = bytes.fromhex("0f1f440000")
PUSH_POP_RET = NOP5 + bytes.fromhex("53 5b c3 cccccccc")  # push rbx; pop rbx; ret
FACTS = TextFacts(starts=frozenset({F, G}), trapping=True, jump_tables=False)


def rel32(addr: int, size: int, target: int) -> bytes:
    return (target - addr - size & 0xFFFFFFFF).to_bytes(4, "little")


def probe(kind: ProbeKind, addr: int | None = F, size: int = 16, **more: object) -> Probe:
    function = Function(addr, size, f"f{addr:x}", "vmlinux", (), more.pop("cold", ())) if addr is not None else None  # type: ignore[arg-type]
    return Probe(1, ProbeName("fbt", "vmlinux", "f", kind), kind, function, **more)  # type: ignore[arg-type]


def found(
    *probes: Probe,
    code: Mapping[int, bytes] = MappingProxyType({F: PUSH_POP_RET}),
    facts: TextFacts = FACTS,
    calls: SystemCalls | None = None,
) -> SiteSet:
    def read(ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [code[addr].ljust(size, b"\xcc")[:size] if addr in code else None for addr, size in ranges]

    ecbs = [Ecb(one, (n,)) for n, one in enumerate(probes)]
    return find_sites(ecbs, read, facts, (lambda: calls)) if calls is not None else find_sites(ecbs, read, facts)


def test_an_entry_and_an_exit() -> None:
    sites = found(probe("entry"), probe("return"))
    entry, exit_ = sites.sites
    assert entry.site == EntrySite(F, NOP5, F) and (entry.number, entry.clauses, entry.offset) == (0, (0,), 0)
    assert isinstance(exit_.site, ExitSite) and (exit_.number, exit_.clauses, exit_.offset) == (1, (1,), 7)
    assert sites.refused == ()


@pytest.mark.parametrize("kind", ["entry", "return", "syscall", "instruction"])
def test_text_that_is_not_mapped(kind: ProbeKind) -> None:
    (refused,) = found(probe(kind), code={}).refused
    assert refused.reason == "its code is not mapped" and not refused.partial


def test_a_function_that_the_kernel_keeps_tracers_out_of() -> None:
    code = {F: bytes.fromhex("55 5d c3 cccccccccccc")}  # push rbp; pop rbp; ret
    facts = TextFacts(starts=frozenset({F}), trapping=True, pads=frozenset({G}))
    sites = found(probe("entry"), probe("return"), code=code, facts=facts)
    assert sites.sites == () and [r.reason for r in sites.refused] == [NO_PAD] * 2


def test_a_kernel_without_ftrace_has_no_pads_at_all() -> None:
    code = {F: bytes.fromhex("f30f1efa 55 5d c3 cccccccccccc")}  # endbr64; push rbp; pop rbp; ret
    sites = found(probe("entry"), probe("return"), code=code)
    assert sites.refused == () and sites.sites[0].site.addr == F + 4, "after the endbr64"
    assert isinstance(sites.sites[0].site, InsnSite)


def test_what_never_returns_is_said() -> None:
    code = {F: NOP5 + bytes.fromhex("ebfe") + b"\xcc" * 9}  # jmp .
    (refused,) = found(probe("return"), code=code).refused
    assert refused.reason == "it never returns"


def test_an_exit_in_a_cold_part() -> None:
    code = {F: NOP5 + b"\x0f\x84" + rel32(F + 5, 6, COLD) + b"\xc3" + b"\xcc" * 4, COLD: b"\x5b\xc3\xcc\xcc\xcc\xcc"}
    sites = found(probe("return", cold=((COLD, COLD + 6),)), code=code)
    assert sorted(site.offset for site in sites.sites) == [11, COLD + 1 - F] and sites.refused == ()


def test_an_instruction_and_one_that_is_none() -> None:
    sites = found(probe("instruction", offset=5), probe("instruction", offset=4))
    assert [site.offset for site in sites.sites] == [5]
    (refused,) = sites.refused
    assert refused.addr == F + 4 and refused.probe.offset == 4


def test_a_jump_over_several_instructions_gives_way_to_a_site_that_it_would_cover() -> None:
    # nop5; push r12; push r13; push r14; ret
    code = {F: NOP5 + bytes.fromhex("4154 4155 4156 c3") + b"\xcc" * 4}
    facts = TextFacts(starts=frozenset({F}), trapping=True, jump_tables=False, side_entries=())
    (alone,) = found(probe("instruction", offset=5), code=code, facts=facts).sites
    assert (
        isinstance(alone.site, InsnSite) and alone.site.first_size and not alone.site.trap and len(alone.site.old) == 6
    )
    first, second = found(probe("instruction", offset=5), probe("instruction", offset=7), code=code, facts=facts).sites
    assert isinstance(first.site, InsnSite) and first.site.trap and first.site.old == bytes.fromhex("4154")
    assert second.site.addr == F + 7


def test_a_system_call_returns_where_the_function_does_that_it_ends_in() -> None:
    code = {F: NOP5 + b"\xe9" + rel32(F + 5, 5, G) + b"\xcc" * 6, G: PUSH_POP_RET}
    calls = SystemCalls({F: (39,)}, {G: Function(G, 16, "g", "vmlinux")}.get)
    (site,) = found(probe("sysret"), code=code, calls=calls).sites
    assert (site.site.addr, site.offset, site.call) == (G + 7, 0, 39)
    (own,) = found(probe("sysret"), calls=calls).sites
    assert (own.offset, own.call) == (7, None)


def call_probe(kind: ProbeKind, *functions: tuple[int, str]) -> Probe:
    first, *others = [Function(addr, 16, name, "vmlinux") for addr, name in functions]
    return Probe(1, ProbeName("syscall", "vmlinux", "x", kind), kind, first, others=tuple(others))


def test_a_system_call_is_probed_in_the_functions_of_all_programs_that_call_it() -> None:
    code = dict.fromkeys((F, G, COLD), PUSH_POP_RET)
    functions = ((F, "__x64_sys_x"), (G, "__ia32_sys_x"), (COLD, "__ia32_compat_sys_x"))
    calls = SystemCalls({F: (3,), COLD: (9 | COMPAT_CALL,)}, lambda _: None, frozenset({"32-bit", "64-bit"}))
    sites = found(call_probe("syscall", *functions), call_probe("sysret", *functions), code=code, calls=calls)
    assert [(s.site.addr, s.offset, s.call, s.compat) for s in sites.sites] == [
        (F, 0, None, False),
        (COLD, 0, None, True),
        (F + 7, 7, None, False),
        (COLD + 7, 7, None, True),
    ]
    assert sites.refused == ()
    (refused,) = found(call_probe("syscall", functions[1]), code=code, calls=calls).refused
    assert refused.addr == G and refused.reason == "no number of a system call leads to it" and not refused.partial


def test_where_two_programs_system_calls_end_in_one_function_each_has_a_site() -> None:
    tail = NOP5 + b"\xe9" + rel32(F + 5, 5, G) + b"\xcc" * 6
    code = {F: tail, COLD: NOP5 + b"\xe9" + rel32(COLD + 5, 5, G) + b"\xcc" * 6, G: PUSH_POP_RET}
    numbers = {F: (39, 40), COLD: (20 | COMPAT_CALL,)}
    calls = SystemCalls(numbers, {G: Function(G, 16, "g", "vmlinux")}.get, frozenset({"32-bit"}))
    sites = found(call_probe("sysret", (F, "__x64_sys_x"), (COLD, "__ia32_sys_x")), code=code, calls=calls).sites
    assert [(s.site.addr, s.call) for s in sites] == [(G + 7, 39), (G + 7, 40), (G + 7, 20 | COMPAT_CALL)]


def test_a_system_call_that_must_not_be_traced() -> None:
    refused = RefusedText.of([(F, F + 16, "the kernel says no")])
    (one,) = found(
        probe("sysret"), facts=TextFacts(trapping=True, refused=refused), calls=SystemCalls({F: (1,)}, lambda _: None)
    ).refused
    assert one.reason == "the kernel says no"


def marker(*, generic: bool, refusal: str = "") -> Marker:
    loads = () if generic else ((F, b"\xb0\x00"),)
    return Marker(0x5000, "m", "f", "", 7, (), 0x6000, loads, generic, refusal)


def test_what_the_kernel_calls_has_no_text() -> None:
    tracepoint = probe("tracepoint", None, tracepoint=Tracepoint(0x4000, "t", "s", "", 9))
    (site,) = found(tracepoint).sites
    assert site.site == TracepointHook(0x4000, 9)


def test_markers_in_both_forms_and_refused() -> None:
    sites = found(
        probe("marker", None, marker=marker(generic=True)),
        probe("marker", None, marker=marker(generic=False)),
        probe("marker", None, marker=marker(generic=True, refusal="not ours")),
    )
    generic, optimized = (site.site for site in sites.sites)
    assert generic == MarkerHook(0x5000, 7, (0x5000 + CALL_OFFSET, 0x6000), 0x5000 + STATE_OFFSET, ())
    assert optimized == MarkerHook(0x5000, 7, (0x5000 + CALL_OFFSET, 0x6000), 0, ((F, b"\xb0\x00"),))
    assert [(r.addr, r.reason) for r in sites.refused] == [(0x5000, "not ours")]
    facts = TextFacts(refused=RefusedText.of([(F, F + 2, "an NMI may come")]))
    (refused,) = found(probe("marker", None, marker=marker(generic=False)), facts=facts).refused
    assert refused.reason.startswith("an NMI may come; its generic form")


def test_the_journals_size_grows_with_sites_and_stages() -> None:
    sites = found(probe("entry"), probe("return")).sites
    at_once = journal_size(sites)
    assert 0 <= journal_size(()) < journal_size(sites[:1]) < at_once
    assert journal_size(sites, frozenset({F})) > at_once, "each stage is a record of its own"
    called = EnabledSite(2, probe("tracepoint", None), TracepointHook(1, 0), (0,), 0)
    assert journal_size([*sites, called]) >= at_once + 3 * 20, "three numbers of a registration"
