"""What D's compiler says of a program, hundreds of them by chapter: tests/data/tags/*.txt, ``TAG | program``.

Each line is a whole script in which ``\\N`` is a line end; ``ok`` is one that compiles. Where several faults are
found at once they stand in order. Together with tests/errors this is the table from an error's tag to a program
that has it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.ir.build import compile_program
from probekit.lang.diagnostics import CompileError

_FOLDER = Path(__file__).resolve().parents[1] / "data" / "tags"


def _rows() -> list[tuple[str, list[str], str]]:
    rows = []
    for path in sorted(_FOLDER.glob("*.txt")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if not line.startswith("#"):
                tags, _, text = line.partition(" | ")
                rows.append((f"{path.stem}-{number}", tags.split(), text.replace("\\N", "\n")))
    return rows


_ROWS = _rows()


@pytest.mark.parametrize(("tags", "text"), [row[1:] for row in _ROWS], ids=[row[0] for row in _ROWS])
def test_each_program_has_exactly_its_tags(tags: list[str], text: str) -> None:
    try:
        compile_program(text, filename="t.d", macros={"pid": 1, "target": 0})
    except CompileError as error:
        assert [d.tag for d in error.diagnostics] == tags
    else:
        assert tags == ["ok"]
