"""Every form of entry on bytes written by hand, with the assembly beside them; and the sizes of static keys."""

from __future__ import annotations

import pytest

from probekit.patch.ranges import Ranges
from probekit.patch.sites import EntrySite, SiteRefusal, TextFacts, entry_site, rewritten_size

F = 0xFFFFFFFF81000000  # the function
G = 0xFFFFFFFF81008000  # another one
NOP5 = "0f1f440000"


@pytest.mark.parametrize(
    ("code", "offset"),
    [
        (NOP5 + "90909090", 0),
        ("f30f1efa" + NOP5, 4),  # endbr64
        ("660f1f00" + NOP5, 4),  # a sealed endbr64: nop word ptr [rax]
        ("0f1f40d6" + NOP5, 4),  # the later seal: nop dword ptr [rax-42]
    ],
)
def test_entry(code: str, offset: int) -> None:
    assert entry_site(F, bytes.fromhex(code)) == EntrySite(F + offset, bytes.fromhex(NOP5), F)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("554889e5 5341540000", "no nop pad"),  # push rbp ...
        ("e811223344 55555555", "already changed (e8 11 22 33 44): the guest's own ftrace or kprobes"),
        ("e911223344 55555555", "already changed (e9 11 22 33 44)"),
        ("cc1f440000 55555555", "already changed (cc 1f 44 00 00): a kprobe"),
        ("f30f1efa e811223344", "already changed"),
        ("f30f1efa 5548890000", "no nop pad"),
        ("", "no nop pad"),
    ],
)
def test_entry_refused(code: str, reason: str) -> None:
    found = entry_site(F, bytes.fromhex(code))
    assert isinstance(found, SiteRefusal) and reason in found.reason and found.addr == F


def test_entry_that_never_had_a_pad() -> None:
    """Half of the kernel's trampolines begin with a jump; where the pads are known, nobody is blamed for those."""
    code = bytes.fromhex("e911223344 55555555")  # jmp rel32
    unused, used = (entry_site(F, code, TextFacts(pads=pads)) for pads in (frozenset({G}), frozenset({F})))
    assert isinstance(unused, SiteRefusal) and "no nop pad" in unused.reason
    assert isinstance(used, SiteRefusal) and "already changed" in used.reason


def test_entry_in_a_reserved_range() -> None:
    found = entry_site(F, bytes.fromhex(NOP5 + "90909090"), TextFacts(reserved=Ranges.of([(F + 4, F + 6)])))
    assert isinstance(found, SiteRefusal) and "itself rewrites" in found.reason


@pytest.mark.parametrize(
    ("code", "size"),
    [("eb10", 2), ("6690", 2), (NOP5, 5), ("e900000000", 5), ("e800000000", 5), ("c3cccccccc", 5)],
)
def test_rewritten_size(code: str, size: int) -> None:
    assert rewritten_size(bytes.fromhex(code)) == size
