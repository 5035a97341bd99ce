"""docs/api.md is the API of the code: its reference is written from it, and its examples run.

tests/live/test_api.py runs the examples that need a guest.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from typing import get_args

import pytest

import probekit
from probekit import errors
from probekit.consumer import events

from . import api_reference
from .api_reference import PAGE, SECTIONS, page

TEXT = PAGE.read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT.partition(api_reference.BEGIN)[0], re.MULTILINE | re.DOTALL)
PROGRAMS = [body for kind, body in BLOCKS if kind == "python"]
SESSIONS = [body for kind, body in BLOCKS if kind == "pycon"]
DESCRIBED = {name: module for names in SECTIONS.values() for module, name in names}


def test_the_reference_is_what_the_code_says() -> None:
    """If it is not: ``python -m tests.docs.api_reference``."""
    assert page(TEXT) == TEXT


def test_every_public_name_is_described() -> None:
    assert set(probekit.__all__) <= set(DESCRIBED)
    assert set(events.__all__) <= set(DESCRIBED)
    assert set(errors.__all__) - {"required"} <= set(DESCRIBED)
    kinds = {kind.__name__ for union in (events.Event, events.RecordItem) for kind in get_args(union)}
    assert kinds <= set(DESCRIBED)


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_described_name_is_there_with_the_parameters_that_stand_there(name: str) -> None:
    found = getattr(importlib.import_module(DESCRIBED[name]), name)
    assert re.search(rf"\*\*`{name}`\*\*|^{name}\(", TEXT, re.MULTILINE)
    for method, function in vars(found).items() if inspect.isclass(found) else ():
        if inspect.isfunction(function) and not method.startswith("_"):
            signature = inspect.signature(function)
            assert f"\n{method}(" in TEXT
            shown = TEXT.partition(f"\n{method}(")[2].partition(" -> ")[0]
            assert all(f"{parameter}" in shown for parameter in list(signature.parameters)[1:])


def test_there_are_examples_of_both_kinds() -> None:
    assert len(PROGRAMS) >= 3 and len(SESSIONS) >= 4


def test_the_examples_that_need_no_guest_print_what_stands_there(homes: object) -> None:
    finder = doctest.DocTestParser()
    example = finder.get_doctest("".join(SESSIONS), {}, "api.md", str(PAGE), 0)
    assert len(example.examples) > 10
    said: list[str] = []
    assert doctest.DocTestRunner().run(example, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_other_examples_import_what_exists(program: str) -> None:
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
