"""The house is in order: each package's docstring is the map of exactly its modules, and each module has its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(path.parent for path in (ROOT / "probekit").rglob("__init__.py") if path.parent.name != "probekit")
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
