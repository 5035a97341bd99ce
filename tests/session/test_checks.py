"""What must hold of a program before anything is done for it."""

from __future__ import annotations

import pytest

from probekit.buffers.layout import RECORD_HEADER
from probekit.enabling.ecb import match_program
from probekit.enabling.sites import RefusedProbe
from probekit.errors import ProbekitError
from probekit.ir.build import compile_program
from probekit.probe.names import ProbeDescription
from probekit.providers.registry import make_registry
from probekit.session.checks import NoMatchError, check_matches, check_records, check_refused, refuse_destructive
from probekit.session.options import Options


def _check(script: str, options: Options) -> None:
    check_matches(match_program(compile_program(script, allow_bare=True), make_registry(None)), options)


def test_a_description_without_a_probe_is_named_with_its_clause() -> None:
    with pytest.raises(NoMatchError, match="probe description :::nosuch does not match any probes") as caught:
        _check("BEGIN { } nosuch { }", Options())
    assert (caught.value.clause, caught.value.tag) == (1, "D_PDESC_ZERO")
    assert caught.value.hint == "list the probes with -l, or allow it with -Z"
    _check("BEGIN { } nosuch { }", Options(zdefs=True))


def test_a_number_without_a_probe_is_an_error_with_zdefs_too() -> None:
    for options in (Options(), Options(zdefs=True)):
        with pytest.raises(NoMatchError, match="there is no probe 987654") as caught:
            _check("987654", options)
        assert (caught.value.tag, caught.value.hint) == ("D_PDESC_INVAL", "list the probes with -l")


def _check_refused(script: str, *refused: str, zdefs: bool = False, partial: bool = False) -> str:
    """Check a script where all probes that match ``refused`` are refused, each with its number as the reason."""
    registry = make_registry(None)
    probes = [probe for text in refused for probe in registry.match(ProbeDescription.parse(text))]
    refusals = [RefusedProbe(probe, 0x10, f"no place for {probe.name.name}", partial) for probe in probes]
    return check_refused(compile_program(script, allow_bare=True), registry, refusals, Options(zdefs=zdefs))


@pytest.mark.parametrize("description", ["tick-10", "profile:::tick-10", "tick-1,tick-10"])
def test_an_exact_description_of_a_refused_probe_is_an_error(description: str) -> None:
    with pytest.raises(NoMatchError) as caught:
        _check_refused(f"BEGIN {{ }} {description} {{ }}", "tick-10")
    assert (caught.value.clause, caught.value.tag) == (1, "D_PDESC_ZERO")
    assert caught.value.message.endswith("tick-10 does not match any probes that are available: no place for tick-10")
    assert "-Z" in caught.value.hint and "-l -v" in caught.value.hint


def test_a_number_of_a_refused_probe_is_an_error() -> None:
    number = next(iter(make_registry(None).match(ProbeDescription.parse("tick-10")))).id
    with pytest.raises(NoMatchError, match=f"probe description {number} does not match"):
        _check_refused(f"{number} {{ }}", "tick-10")


def test_a_description_with_a_live_probe_is_none() -> None:
    assert _check_refused("tick-10 { }", "tick-1") == ""
    assert _check_refused("profile::: { }", "tick-1*") == ""
    assert _check_refused("tick-10 { }") == ""


def test_a_glob_whose_probes_are_all_refused_is_none() -> None:
    assert _check_refused("tick-1* { }", "tick-*") == ""


def test_a_probe_that_is_missing_some_of_its_places_is_none() -> None:
    assert _check_refused("tick-10 { }", "tick-10", partial=True) == ""


def test_refused_probes_are_told_in_one_line_with_zdefs() -> None:
    assert _check_refused("tick-10 { }", "tick-10", zdefs=True) == (
        "probe description :::tick-10 does not match any probes that are available: no place for tick-10"
    )
    assert _check_refused("tick-10, tick-1 { } tick-100 { } BEGIN { }", "tick-*", zdefs=True) == (
        "probe description :::tick-10 does not match any probes that are available: no place for tick-10"
        " (and 2 more: -l -v says why)"
    )


def test_a_record_that_never_fits_is_an_error_from_the_start() -> None:
    program = compile_program("BEGIN { trace(1); } END { trace(execname); trace(probename); }")
    largest = max(RECORD_HEADER.size + clause.record.size for clause in program.clauses if clause.record is not None)
    check_records(program, Options(bufsize=largest))
    with pytest.raises(ProbekitError, match="Enabling exceeds size of buffer") as caught:
        check_records(program, Options(bufsize=largest - 1))
    assert f"a record takes {largest} bytes" in caught.value.hint


def test_destructive_actions_need_their_option() -> None:
    program = compile_program("BEGIN { panic(); }")
    refuse_destructive(program, Options(destructive=True))
    refuse_destructive(compile_program("BEGIN { trace(1); }"), Options())
    with pytest.raises(ProbekitError, match="Destructive actions not allowed") as caught:
        refuse_destructive(program, Options())
    assert caught.value.hint == "panic() is one; -w allows them"
