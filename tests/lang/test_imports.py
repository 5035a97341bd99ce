"""Modules of the language import one another in one direction."""

from __future__ import annotations

import grimp

_ONE_DATUM = {"probekit.lang.ast_exprs", "probekit.lang.ast_types"}
"""The syntax tree is recursive, and lies in two files."""


def test_no_two_modules_need_each_other() -> None:
    # Imports in functions and under TYPE_CHECKING count as well.
    graph = grimp.build_graph("probekit", cache_dir=None)
    modules = {m for m in graph.modules if m.startswith("probekit.lang")}
    assert "probekit.lang.parse.parser" in modules
    circles = {
        frozenset((importer, imported))
        for importer in modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if graph.chain_exists(importer=imported, imported=importer)
    }
    assert circles == {frozenset(_ONE_DATUM)}
