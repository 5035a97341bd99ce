"""Which clauses are enabled at which probes: each once, in program order, and descriptions that match nothing."""

from __future__ import annotations

from probekit.enabling.ecb import Matching, match_program
from probekit.ir.build import compile_program
from probekit.providers.dtrace import BEGIN, END
from probekit.providers.registry import make_registry


def matched(text: str) -> Matching:
    return match_program(compile_program(text, allow_bare=True), make_registry(None))


def test_clauses_of_a_probe_come_in_program_order_and_each_once() -> None:
    found = matched("BEGIN { x = 1; } END, BEGIN, dtrace:::BEGIN { x = 2; } dtrace::: { x = 3; } BEGIN { x = 4; }")
    clauses = {ecb.probe: ecb.clauses for ecb in found.ecbs}
    assert clauses[BEGIN] == (0, 1, 2, 3) and clauses[END] == (1, 2) and found.unmatched == ()
    assert [ecb.probe.id for ecb in found.ecbs] == sorted(ecb.probe.id for ecb in found.ecbs)


def test_each_description_that_matches_nothing_is_told_with_its_clause() -> None:
    found = matched("BEGIN, fbt::nobody:entry { x = 1; } fbt::nobody:return { x = 2; }")
    assert [(clause, str(description)) for clause, description in found.unmatched] == [
        (0, "fbt::nobody:entry"),
        (1, "fbt::nobody:return"),
    ]
    assert [ecb.probe for ecb in found.ecbs] == [BEGIN]


def test_probes_of_the_host_are_not_in_the_guest() -> None:
    found = matched("BEGIN { x = 1; } tick-5s { x = 2; }")
    assert [ecb.clauses for ecb in found.of_kind("tick")] == [(1,)] and found.in_guest() == ()
    assert len(found.of_kind("tick", "begin")) == 2
