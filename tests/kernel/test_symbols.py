"""The symbol table: by name, by address, text, ranges, with and without modules."""

from __future__ import annotations

from array import array

import pytest

from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.symbols import ModuleSymbols, SymbolTable

from .fakes import BASE


def _table(*, asked: bool = False) -> SymbolTable:
    rows = [
        (0, "A", "percpu"),
        (BASE, "T", "_text"),
        (BASE, "T", "_stext"),
        (BASE + 16, "t", "__pfx_dup"),
        (BASE + 32, "t", "dup"),
        (BASE + 64, "T", "other"),
        (BASE + 96, "t", "dup"),
        (BASE + (1 << 20), "D", "data"),
    ]
    raw = RawSymbols(array("Q", [r[0] for r in rows]), [r[2] for r in rows], "".join(r[1] for r in rows))
    module = ModuleSymbols("mod", (BASE + (9 << 20), BASE + (8 << 20)), ("dup", "init"), "td", (7, 0))
    if not asked:
        return SymbolTable(raw, (module,))
    core = SymbolTable(raw)
    assert core.addr("dup") == BASE + 32 and core.find("init") == ()  # its names are known now, and are used again
    return core.with_modules(raw, (module,))


@pytest.mark.parametrize("asked", [False, True])
def test_symbols_are_found_by_name_address_and_module(asked: bool) -> None:
    table = _table(asked=asked)
    assert [(s.addr - BASE, s.module, s.size) for s in table.find("dup")] == [
        (32, "", 32),
        (96, "", 64 << 10),
        (9 << 20, "mod", 7),
    ]
    assert [s.module for s in table.find("dup", "mod")] == ["mod"] and len(table.find("dup", "")) == 2
    assert table.addr("dup") == BASE + 32 and table.addr("nope") is None and table.find("nope") == ()
    assert table.addr("init") == BASE + (8 << 20)
    found = table.lookup(BASE + 33)
    assert found is not None and found[0].name == "dup" and found[1] == 1
    assert table.lookup(BASE + (90 << 10)) is None, "padding beyond the cap is nobody's"
    assert table.lookup(BASE + (9 << 20) + 7) is None and str(table.find("dup", "mod")[0]) == "mod`dup"
    assert [s.name for s in table.text("")] == ["_text", "_stext", "dup", "other", "dup"]
    assert [s.name for s in table.text()][-1] == "dup"
    assert table.range("_text", "other") == (BASE, BASE + 64) and table.range("_text", "nope") is None
    assert len(table) == 10 and len(list(table)) == 10
