"""Every tests/errors/err.<TAG>.<name>.d is refused with exactly that tag."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.ir.build import compile_program
from probekit.lang.diagnostics import CompileError

_FILES = sorted((Path(__file__).resolve().parents[1] / "errors").glob("err.*.d"))


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_each_file_is_refused_with_exactly_its_tag(path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        compile_program(path.read_text("utf-8"), filename=path.name)
    assert [d.tag for d in caught.value.diagnostics] == [path.name.split(".")[1]]
    for diagnostic in caught.value.diagnostics:
        assert 0 <= diagnostic.span.start <= diagnostic.span.end
        assert diagnostic.message
