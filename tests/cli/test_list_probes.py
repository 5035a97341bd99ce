"""``-l``: the probes that match, without a guest those of the host."""

from __future__ import annotations

import io
import json

import pytest

from probekit.cli.list_probes import list_probes
from probekit.errors import ProbekitError
from probekit.ir.build import compile_program


def _listed(text: str | None, *, verbose: bool = False, json: bool = False) -> str:
    out = io.StringIO()
    program = None if text is None else compile_program(text, allow_bare=True)
    list_probes(None, program, out, verbose=verbose, json=json)
    return out.getvalue()


def test_only_probes_that_match_are_listed() -> None:
    lines = _listed("BEGIN { } tick-1s { }").splitlines()
    assert len(lines) == 3 and lines[0].split()[:2] == ["ID", "PROVIDER"]
    assert lines[1].split()[-1] == "BEGIN" and lines[2].split()[-1] == "tick-1s"


def test_without_a_program_every_probe_of_the_host_is_listed() -> None:
    names = {line.split()[-1] for line in _listed(None).splitlines()}
    assert {"BEGIN", "END", "ERROR"} <= names


def test_nothing_that_matches_is_an_error() -> None:
    with pytest.raises(ProbekitError, match="No probe matches"):
        _listed("fbt::nosuch:entry { }")


def test_json_has_one_object_for_each_probe() -> None:
    (probe,) = [json.loads(line) for line in _listed("BEGIN { }", json=True).splitlines()]
    assert "BEGIN" in json.dumps(probe)


def test_verbose_adds_stability_and_arguments() -> None:
    plain, verbose = _listed("BEGIN { }"), _listed("BEGIN { }", verbose=True)
    assert len(verbose) > len(plain) and "Stable" in verbose
