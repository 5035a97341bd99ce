"""Which memory a description names."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.probe.names import ProbeDescription
from probekit.providers.mem import MAX_WATCHED, KernelVariable, MemError, MemProvider

JIFFIES = 0xFFFFFFFF82A05980
TABLE = {
    "jiffies": KernelVariable(JIFFIES, 64, "vmlinux"),
    "short": KernelVariable(JIFFIES + 0x100, 2, "vmlinux"),
    "last": KernelVariable(JIFFIES + 0x200, 0, "mod"),
    "percpu": KernelVariable(0x1F440, 8, "vmlinux"),
    "last_jiffies.3": KernelVariable(JIFFIES + 0x300, 8, "vmlinux"),
}


def _provider() -> MemProvider:
    return MemProvider(TABLE.get, count(100))


def _match(provider: MemProvider, text: str) -> list[tuple[str, int, int]]:
    found = provider.match(ProbeDescription.parse(text))
    return [(str(p.name), p.watched.addr, p.watched.size) for p in found if p.watched is not None]


@pytest.mark.parametrize(
    ("text", "name", "addr", "size"),
    [
        ("mem::jiffies:write", "mem:vmlinux:jiffies:write", JIFFIES, 8),
        ("mem::jiffies-4:read", "mem:vmlinux:jiffies-4:read", JIFFIES, 4),
        ("mem::jiffies-0x20:w*", "mem:vmlinux:jiffies-0x20:write", JIFFIES, 32),
        ("mem::short:write", "mem:vmlinux:short:write", JIFFIES + 0x100, 2),
        ("mem:mod:last:write", "mem:mod:last:write", JIFFIES + 0x200, 1),
        ("mem::last_jiffies.3:write", "mem:vmlinux:last_jiffies.3:write", JIFFIES + 0x300, 8),
        ("mem::0xffffffff82a05980-2:write", "mem::0xffffffff82a05980-2:write", JIFFIES, 2),
        ("mem::0x7f0000001000:read", "mem::0x7f0000001000:read", 0x7F0000001000, 8),
    ],
)
def test_named(text: str, name: str, addr: int, size: int) -> None:
    assert _match(_provider(), text) == [(name, addr, size)]


def test_both_accesses_once() -> None:
    provider = _provider()
    both = _match(provider, "mem::jiffies:")
    assert [name for name, _, _ in both] == ["mem:vmlinux:jiffies:read", "mem:vmlinux:jiffies:write"]
    assert _match(provider, "mem::jiffies:write") == both[1:]
    assert _match(provider, "mem:::") == both
    (first, second) = provider.match(ProbeDescription.parse("mem:::"))
    assert (first.id, second.id) == (100, 101) and provider.by_id(101) == second and provider.by_id(99) is None
    assert first.in_guest and first.function is None


@pytest.mark.parametrize(
    "text",
    [
        "mem::none:write",
        "mem::jiff*:write",
        "mem:::write",
        ":::write",
        "jiffies:write",
        "mem::jiffies:exec",
        "mem:other:jiffies:write",
        "mem::jiffies-:write",
        "mem::0x:write",
        "mem::12:write",
        "fbt::jiffies:write",
    ],
)
def test_nothing(text: str) -> None:
    assert _match(_provider(), text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mem::jiffies-0:write", "a range of 0 bytes"),
        (f"mem::jiffies-{MAX_WATCHED + 1}:write", "a range of"),
        ("mem::jiffies-ff:write", "a range of 0 bytes"),
        ("mem::percpu:write", "not at one address"),
        ("mem::0xfffffffffffffff9:write", "one half"),
        ("mem::0x7fffffffffffffff-2:write", "one half"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(MemError, match=said):
        _match(_provider(), text)


@given(st.from_regex(r"[-$a-zA-Z_.?*\\\[\]!0-9`]{1,20}", fullmatch=True), st.sampled_from(["read", "write", ""]))
def test_any_text_is_taken(place: str, name: str) -> None:
    provider = _provider()
    try:
        for probe in provider.match(ProbeDescription("mem", "", place, name)):
            watched = probe.watched
            assert watched is not None
            assert 0 < watched.size <= MAX_WATCHED and 0 <= watched.addr <= (1 << 64) - watched.size
    except MemError as error:
        assert error.range_text == place
