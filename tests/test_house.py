"""The house is in order: each package's docstring is the map of exactly its modules, and each module has its tests.

The tests of ``probekit/PKG/NAME.py`` are in ``tests/PKG/test_NAME.py``. :data:`NO_TEST_OF_ITS_OWN` is the list of the
modules that have no such file, with the tests that hold them instead.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(path.parent for path in (ROOT / "probekit").rglob("__init__.py") if path.parent.name != "probekit")
NO_TEST_OF_ITS_OWN: dict[str, str] = {
    "buffers.print_types": "data only",
    "cli.errors": "data only",
    "cli.help": "a text: tests/docs/test_manual.py compares it with the manual",
    "cli.trace": "whole commands: tests/cli/test_commands.py, tests/cli/test_no_guest.py and tests/cli/test_runs.py",
    "codegen.context": "the facts that all code is made with: tests/codegen/test_code.py",
    "codegen.emit_context": "with the code that is made with it: tests/codegen/test_arithmetic.py",
    "consumer.events": "data only",
    "enabling.api": "protocols and data only",
    "enabling.guest_access": "with the engine that uses it: tests/session/test_undo.py",
    "enabling.guest_engine": "the whole engine: tests/session/test_undo.py kills it at each step",
    "guest.facts": "data only",
    "guest.offsets": "data only",
    "ir.build": "calls the other stages in order: tests/ir/test_lower.py",
    "ir.ops": "data only",
    "kernel.kernel": "with what opens it: tests/kernel/test_open_kernel.py and tests/kernel/test_live.py",
    "lang": "one recursion: tests/lang/test_errors.py and tests/lang/test_tags.py have each of its errors, "
    "tests/lang/test_golden.py its trees, tests/lang/test_fuzz.py and tests/lang/test_kerneltypes.py any input",
    "providers.api": "protocols and data only",
    "session.api": "a facade over the session: tests/docs/test_api.py and tests/live/test_api.py",
    "session.attach": "attaches to a live guest: tests/live/test_connection.py and tests/live/test_conflicts.py",
    "session.guest_tracing": "a run in a live guest: tests/live/test_engines.py",
    "session.guest_types": "types of a live kernel: tests/live/test_types.py and tests/live/test_no_types.py",
}
"""Modules, and packages of which the same is true of each module without a test file, with what holds them instead.

An entry names the tests, or says that there is nothing to test in it: "data only".
"""

_ENTRY = re.compile(r"^- ``(\w+)``\s+\S", re.MULTILINE)


def _modules(package: Path) -> set[str]:
    """The modules and packages in a package."""
    files = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    return files | {path.parent.name for path in package.glob("*/__init__.py")}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_docstring_of_a_package_names_exactly_its_modules(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    named = _ENTRY.findall(docstring)
    assert sorted(named) == sorted(_modules(package))


def _all_modules() -> list[str]:
    """Every module of the package by its name without ``probekit.``."""
    files = (path for path in (ROOT / "probekit").rglob("*.py") if path.stem not in ("__init__", "__main__"))
    return sorted(".".join(path.relative_to(ROOT / "probekit").with_suffix("").parts) for path in files)


def _mirrored(module: str) -> Path:
    """The test file of a module: ``buffers.layout`` has ``tests/buffers/test_layout.py``."""
    *packages, name = module.split(".")
    return ROOT.joinpath("tests", *packages, f"test_{name}.py")


def _listed(module: str) -> str | None:
    """The entry of :data:`NO_TEST_OF_ITS_OWN` that covers a module: itself, or the nearest package that is listed."""
    parts = module.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in NO_TEST_OF_ITS_OWN), None)


@pytest.mark.parametrize("module", _all_modules())
def test_a_module_has_its_test_file_or_a_reason_for_having_none(module: str) -> None:
    has_tests = _mirrored(module).exists()
    assert has_tests or _listed(module) is not None, f"no {_mirrored(module).relative_to(ROOT)}"
    assert not (has_tests and module in NO_TEST_OF_ITS_OWN), f"{module} is listed, and has a test file"


def test_each_mirrored_test_file_has_tests() -> None:
    """An empty file would satisfy the rule and hold nothing."""
    files = (path for path in map(_mirrored, _all_modules()) if path.exists())
    assert [path for path in files if not re.search(r"^ *def test_", path.read_text(), re.MULTILINE)] == []


@pytest.mark.parametrize("name", NO_TEST_OF_ITS_OWN)
def test_an_entry_is_needed_and_the_tests_that_it_names_exist(name: str) -> None:
    without = [module for module in _all_modules() if not _mirrored(module).exists()]
    assert any(_listed(module) == name for module in without), f"nothing needs the entry {name}"
    reason = NO_TEST_OF_ITS_OWN[name]
    paths = re.findall(r"tests/[\w/]+\.py", reason)
    assert paths or reason.endswith("data only"), f"the reason of {name} names no test"
    assert [path for path in paths if not (ROOT / path).exists()] == []
