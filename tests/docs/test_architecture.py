"""What the documents say of the code is so: paths, names, layers, contracts, and the order of what one command does.

tests/live/test_architecture.py has the order of what needs a guest.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

from probekit.cli.main import main
from probekit.ir.build import compile_program
from probekit.ir.pprint import format_program
from probekit.session.options import OPTIONS
from tests.support.small_enabling import SmallEnabling, quick

__all__ = ("quick",)

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "probekit"
PAGE = ROOT / "docs" / "architecture.md"
DOCUMENTS = [PAGE, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "README.md", "docs/bench.md"))]
DOCUMENTS += [ROOT / "docs" / "language.md", ROOT / "vm" / "README.md"]

_CODE = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PLACE = re.compile(r"(?P<path>[\w.-]+(?:/[\w.-]+)*/?)(?::(?P<name>[A-Za-z_]\w*))?")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SUFFIXES = (".py", ".md", ".toml", ".test", ".txt", ".lark", ".h", ".c", ".1", ".sh", "/")
# What a `word.py`-like word is that is no file of this repository: a script of the reader's own, and a home's folder.
_NOT_OURS = frozenset(("x.d", "script.d", "result.txt", "figures.json"))


class Reference(NamedTuple):
    """One place that a document names. ``name``: of a function, class or table in the file, or empty."""

    path: Path
    name: str
    text: str
    optional: bool = False
    """Whether it is named in a step that not every run takes."""


def _resolved(path: str) -> Path | None:
    """A path from the repository's root, or from ``probekit/``."""
    return next((base / path for base in (ROOT, PACKAGE) if (base / path).exists()), None)


def references(text: str) -> Iterator[Reference]:
    """Every path in backquotes, with the name after its colon. Fails for one that does not exist."""
    for word in _CODE.findall(_FENCE.sub("", text)):
        match = _PLACE.fullmatch(word)
        if match is None or not match["path"].endswith(_SUFFIXES) or match["path"] in _NOT_OURS:
            continue
        path = _resolved(match["path"])
        assert path is not None, f"there is no {word}"
        yield Reference(path, match["name"] or "", word)


@cache
def _defined(path: Path) -> frozenset[str]:
    """The names of a module: functions, methods, classes, and what is assigned at its top or in a class."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return frozenset(names)


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    rest = text.partition(f"\n{heading}\n")[2]
    assert rest, f"there is no section {heading}"
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def steps(text: str, heading: str) -> list[Reference]:
    """The functions that the numbered list of a section names, in order. A step that begins with *Only* is optional."""
    numbered = re.findall(r"^\d+\. .*?(?=\n\S|\n\n|\Z)", section(text, heading), re.MULTILINE | re.DOTALL)
    return [
        found._replace(optional=re.match(r"\d+\. \*Only ", step) is not None)
        for step in numbered
        for found in references(step)
        if found.name
    ]


def first_calls(run: Callable[[], object]) -> dict[tuple[str, str], int]:
    """Which functions of probekit ``run`` calls: (file, name) to the rank of the first call."""
    ranks: dict[tuple[str, str], int] = {}
    folder = str(PACKAGE)

    def watch(frame: FrameType, event: str, _arg: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(folder):
            ranks.setdefault((code.co_filename, code.co_name), len(ranks))

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(before)
    return ranks


def check_order(found: list[Reference], ranks: dict[tuple[str, str], int]) -> None:
    """Each of the functions is called for the first time after the one before it. Optional ones may be missing."""
    last, before = -1, ""
    for place in found:
        rank = ranks.get((str(place.path), place.name))
        if rank is None and place.optional:
            continue
        assert rank is not None, f"{place.text} is not called"
        assert rank > last or place.text == before, f"{place.text} is called before {before}"
        last, before = rank, place.text


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_exists_and_has_the_name(page: Path) -> None:
    for place in references(page.read_text()):
        if place.name:
            assert place.name in _defined(place.path), place.text


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    for link in _LINK.findall(_FENCE.sub("", text)):
        path, _, anchor = link.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text()), link


def _anchors(text: str) -> set[str]:
    """The names that a page's headings get: lower case, words and hyphens."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_names_enough() -> None:
    text = PAGE.read_text()
    found = list(references(text))
    assert len(found) > 200 and sum(bool(place.name) for place in found) > 90
    assert len(steps(text, "## The path of one patched byte")) > 30


def test_every_package_is_named() -> None:
    text = section(PAGE.read_text(), "## Packages")
    packages = {f"{init.parent.relative_to(ROOT)}/" for init in PACKAGE.rglob("__init__.py")} - {"probekit/"}
    assert packages == {word for word in _CODE.findall(text) if word.startswith("probekit/")} - {"probekit/"}


def _contracts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return found


def test_the_picture_of_the_layers_is_the_contract() -> None:
    picture = re.search(r"^```layers\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert picture is not None
    lines = [re.split(r" {2,}", line, maxsplit=1) for line in picture[1].splitlines()]
    (contract,) = (c for c in _contracts() if c["type"] == "layers")
    assert [names for names, _ in lines] == contract["layers"]
    # Each package of a line has its own words.
    for names, words in lines:
        assert words.count("|") == names.count("|"), names


def test_the_other_contracts_are_told() -> None:
    text = section(PAGE.read_text(), "## Layers")
    for contract in _contracts():
        if contract["type"] == "layers":
            continue
        assert f"| {contract['name']} |" in text
        for module in contract.get("modules", []) + contract.get("source_modules", []):
            path = module.removeprefix("probekit.").replace(".", "/")
            assert f"`{path}/`" in text, module


def test_the_shown_ir_is_what_the_clause_becomes() -> None:
    text = section(PAGE.read_text(), "## The path of one record")
    script = re.search(r"The clause: `(.*)`\.", text)
    shown = re.search(r"^```ir\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert script is not None and shown is not None
    assert format_program(compile_program(script[1])) == shown[1]


def test_what_needs_no_guest_is_called_in_that_order(capfd: pytest.CaptureFixture[str]) -> None:
    script = 'BEGIN { printf("%d\\n", 3); @q = quantize(5); exit(0); }'
    ranks = first_calls(lambda: main(["-r", "none", "-Z", "-n", script]))
    assert "Distribution" in capfd.readouterr().out
    found = [p for p in steps(PAGE.read_text(), "## The path of one command") if (str(p.path), p.name) in ranks]
    names = {place.text for place in found}
    assert {
        "cli/main.py:main",
        "ir/build.py:build_program",
        "session/run.py:events",
        "output/text.py:aggregations",
    } <= names
    check_order(found, ranks)


@pytest.mark.usefixtures("quick")
def test_an_enabling_and_its_end_are_in_that_order(tmp_path: Path) -> None:
    small = SmallEnabling(tmp_path)
    with small.process():
        ranks = first_calls(lambda: small.end(small.live()))
    found = [p for p in steps(PAGE.read_text(), "## The path of one patched byte") if (str(p.path), p.name) in ranks]
    # All from the engine's first call to the last free, and what only this enabling needs.
    assert len(found) > 45
    assert {
        "enabling/guest_engine/engine.py:enable",
        "enabling/guest_engine/staged_edits.py:announce",
        "guest/grace_period.py:begin",
        "enabling/release.py:_sleepers",
        "session/journal_log.py:freed",
    } <= {place.text for place in found}
    check_order(found, ranks)


@pytest.mark.usefixtures("quick")
def test_a_recovery_is_in_that_order(tmp_path: Path) -> None:
    small = SmallEnabling(tmp_path)
    with small.process():
        small.live()
    with small.process():
        ranks = first_calls(small.recover)
    found = [p for p in steps(PAGE.read_text(), "## The way back after SIGKILL") if (str(p.path), p.name) in ranks]
    assert [place.name for place in found] == [
        "undo_journal", "_give_back_tasks", "find_whereabouts", "_revert", "revert_batches",
        "_unregister_and_free", "release_holdings", "close",
    ]  # fmt: skip
    check_order(found, ranks)


def test_every_option_and_command_that_is_named_exists() -> None:
    text = "".join(page.read_text() for page in (PAGE, ROOT / "CONTRIBUTING.md"))
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make (\w+)", text)):
        assert f"\n{target}:" in makefile, target
    for option in set(re.findall(r"-x (\w+)", text)):
        assert option in OPTIONS, option
    suite = (ROOT / "tests" / "conftest.py").read_text()
    for flag in set(re.findall(r"`(--(?:update|nmis|soak|kills|fault|activations)[\w-]*)", text)):
        assert f'"{flag}"' in suite, flag


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| (.+?) \| ", section(PAGE.read_text(), "## Glossary"), re.MULTILINE)[1:]
    assert words == sorted(words, key=str.casefold) and len(words) > 40
