"""Modules that stay loaded: only those that are there are kept, and a list that never ends is no list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from probekit.errors import GuestError
from probekit.guest.module_refs import ModuleRefs, find_module_refs
from probekit.kernel.btf import Btf
from tests.kernel.fakes import BtfWriter

HEAD, LINK, STATE = 0x100, 8, 0
MODULE_REFS = ModuleRefs(get=1, put=2, modules=HEAD, link=LINK, state=STATE)


class Modules:
    """``struct module`` at each address, live (0) or in another state, on one list."""

    def __init__(self, *modules: tuple[int, int]) -> None:
        links = [HEAD, *(addr + LINK for addr, _ in modules), HEAD]
        self.words = dict(pairwise(links))
        self.words |= {addr + STATE: state for addr, state in modules}

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [self.words[addr].to_bytes(8, "little")[:size] if addr in self.words else None for addr, size in ranges]


class Point:
    def __init__(self, answer: int = 1) -> None:
        self.answer = answer
        self.calls: list[tuple[int, ...]] = []

    def call(self, function: int, *args: int, **_: Any) -> int:
        self.calls.append((function, *args))
        return self.answer


def test_a_module_that_is_there_is_kept_and_let_go() -> None:
    point = Point()
    shown: Any = point
    MODULE_REFS.take(shown, Modules((0x1000, 0), (0x2000, 0)).read, 0x2000)
    MODULE_REFS.give_back(shown, 0x2000)
    assert point.calls == [(1, 0x2000), (2, 0x2000)]


@pytest.mark.parametrize("modules", [(), ((0x1000, 0),), ((0x2000, 2),)], ids=["none", "another", "going"])
def test_the_kernel_is_never_asked_for_one_that_is_gone(modules: tuple[tuple[int, int], ...]) -> None:
    point = Point()
    shown: Any = point
    with pytest.raises(GuestError, match="was unloaded"):
        MODULE_REFS.take(shown, Modules(*modules).read, 0x2000)
    assert point.calls == []


@pytest.mark.parametrize("answer", [0, 0xFFFFFFFF00000000])
def test_one_that_the_kernel_does_not_give_is_an_error(answer: int) -> None:
    point: Any = Point(answer)  # a bool is returned in one byte
    with pytest.raises(GuestError, match="is being unloaded"):
        MODULE_REFS.take(point, Modules((0x2000, 0)).read, 0x2000)


def test_a_list_that_goes_round_without_its_head_ends() -> None:
    modules = Modules((0x1000, 0))
    modules.words[0x1000 + LINK] = 0x1000 + LINK
    assert not MODULE_REFS.is_loaded(modules.read, 0x2000)


def test_kernels_that_cannot_unload_modules() -> None:
    writer = BtfWriter()
    number = writer.int("int", 4)
    writer.struct("module", 64, [("state", number, 0), ("list", number, 64)])
    btf = Btf(writer.data())
    symbols = {"try_module_get": 1, "module_put": 2, "modules": HEAD}
    assert find_module_refs(symbols.get, btf) == ModuleRefs(1, 2, HEAD, 8, 0)
    for missing in symbols:
        assert find_module_refs({k: v for k, v in symbols.items() if k != missing}.get, btf) is None
    assert find_module_refs(symbols.get, None) is None
