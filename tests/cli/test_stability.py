"""The stability report, and the minimum of ``-x amin``."""

from __future__ import annotations

import pytest

from probekit.cli.errors import ScriptError
from probekit.cli.sources import Compiled, ProgramText, compile_sources
from probekit.cli.stability import check_attributes, stability_text
from probekit.enabling.ecb import Matching, match_program
from probekit.providers.registry import make_registry
from probekit.session.options import Options


def _compile(*texts: str) -> tuple[Compiled, Matching]:
    sources = [ProgramText(text, f"description 'x{n}'", f"<{n}>") for n, text in enumerate(texts)]
    compiled = compile_sources(sources, (), Options(), None)
    return compiled, match_program(compiled.program, make_registry(None))


def test_the_report_is_of_one_source() -> None:
    compiled, matching = _compile("BEGIN { trace(1); }", "tick-1s { trace(2); }")
    reports = [
        stability_text(source.name, clauses, matching, lambda probe: ("int", "char *"))
        for source, clauses in compiled.by_source()
    ]
    assert reports[0].startswith(
        "\nStability attributes for description x0:\n\n\tMinimum Probe Description Attributes\n"
    )
    assert "Argument types of dtrace:::BEGIN:\n\targs[0]: int\n\targs[1]: char *\n" in reports[0]
    assert "tick" not in reports[0] and "Argument types of profile:::tick-1s:" in reports[1]
    assert "Identifier Names: Stable" in reports[0] and "Identifier Names: Evolving" in reports[1]


def test_a_clause_below_the_minimum_is_named_with_its_source_and_line() -> None:
    compiled, matching = _compile("BEGIN { trace(1); }", "BEGIN { }\ntick-1s { trace(2); }")
    check_attributes("Evolving/Evolving/Common", compiled, matching, errtags=False)
    with pytest.raises(ScriptError) as caught:
        check_attributes("Stable/Stable/Common", compiled, matching, errtags=False)
    assert caught.value.message == (
        "invalid probe specifier <1>: line 2: attributes Evolving/Evolving/Common are less than the minimum, "
        "Stable/Stable/Common"
    )
    with pytest.raises(ScriptError, match=r"<1>: \[D_ATTR_MIN\] line"):
        check_attributes("Stable/Stable/Common", compiled, matching, errtags=True)
