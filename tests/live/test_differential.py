"""Random scripts on the same deterministic work: as code in the guest, and on the host at stopped vCPUs.

A few in the normal run; ``PROBEKIT_FUZZ=100 pytest --timeout 0 tests/live/test_differential.py`` does more: so many
scripts, and 120 times as many expressions, aggregations and strings, many of them in one script.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from probekit.errors import UnsupportedError
from probekit.ir.build import compile_program
from probekit.lang.diagnostics import CompileError
from probekit.session.attach import AttachOptions, attach
from probekit.session.options import Options
from tests.codegen.emulated_kernel import KMEM
from tests.codegen.scripts import AGGREGATING, DECLARATIONS, aggregation, expressions, scripts, texts
from tests.live.inprocess import Outcome, trace
from tests.live.test_engines import ENGINES, shape
from tests.live.work import lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

EXAMPLES = int(os.environ.get("PROBEKIT_FUZZ", "2"))
CASES = 120 * EXAMPLES
TOGETHER = 240  # cases in one script
WORK = "taskset 2 dd if=/dev/zero of=/dev/null bs=4096 count=6 2>/dev/null"
OPTIONS = Options(dynvarsize=1 << 16, aggsize=1 << 17)

# What differs from one run to the next.
_CHANGING = re.compile(r"\b(v?timestamp|walltimestamp|\(int64_t\)curthread|pid|tid|ppid|cpu|id)\b")
_PROBES = ("fbt::vfs_read:entry", "fbt::vfs_read:return")


def steady(text: str, memory: int) -> str:
    """The same script on one function's calls by one program, whose arguments are known; reading constant memory."""
    text = quieted(text, memory)
    probes = iter(_PROBES * 3)
    mine = 'execname == "dd"'

    def clause(found: re.Match[str]) -> str:
        own = f" && ({found[1]})" if found[1] else ""
        return f"{next(probes)} /{mine}{own}/ {{"

    return re.sub(r"fbt:::\s*(?:/(.*?)/)?\s*\{(?= )", clause, text)


def quieted(text: str, memory: int) -> str:
    """The same with what changes from run to run replaced by what does not; only ``arg2`` is the work's own."""
    text = re.sub(r"\(int64_t\)curthread", "uid", text)
    text = _CHANGING.sub("uid", text)
    text = re.sub(r"\barg[0-5]\b", "arg2", text).replace(f"{KMEM:#x}", f"{memory:#x}")
    return text.replace("& 0xfff", "& 0x7f").replace("0x2000", "0x20").replace("0x1ff", "0x1")


@pytest.fixture(scope="module")
def constant(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Where the kernel has text that never changes."""
    with pytest.MonkeyPatch.context() as patch:
        # What other runs have left in the user's own state directory is no concern of this one.
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with attach(guest.gdb, AttachOptions()) as attachment:
            addr = attachment.kernel.symbols.addr("linux_banner")
    assert addr is not None
    return addr


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
    derandomize=EXAMPLES < 10,
)
@given(scripts())
def test_any_script_is_the_same(guest: Guest, homes: object, constant: int, text: str) -> None:
    script = steady(text, constant)
    found: list[dict[str, Any]] = []
    for engine in ENGINES:
        try:
            found.append(shape(trace(guest, script, lines(guest, WORK), engine=engine, options=OPTIONS)))
        except (CompileError, UnsupportedError):
            assume(False)
    assert found[0] == found[1], script


def _drawn(strategy: st.SearchStrategy[str], count: int) -> list[str]:
    """Different examples of a strategy, always the same ones in a small run."""
    found: dict[str, None] = {}

    @settings(max_examples=2 * count, database=None, derandomize=EXAMPLES < 10, phases=(Phase.generate,))
    @given(strategy)
    def draw(example: str) -> None:
        found[example] = None

    draw()
    return list(found)[:count]


def _compiles(clause: str) -> bool:
    try:
        compile_program(f"{DECLARATIONS} {clause}")
    except CompileError:
        return False
    return True


def _cases(memory: int, count: int) -> list[str]:
    """Statements: integers of every type, strings, and updates of every aggregating function."""
    drawn = [f"trace({text});" for text in _drawn(expressions, count // 2)]
    drawn += [f"trace({text});" for text in _drawn(texts, count // 4)]
    for function in AGGREGATING:
        drawn += _drawn(aggregation((function,)), -(-count // (4 * len(AGGREGATING))))
    quiet = [quieted(text, memory) for text in drawn]
    return [text for text in quiet if _compiles(f"fbt::vfs_read:entry {{ {text} }}")]


def _clause(number: int, text: str) -> str:
    probe = _PROBES[number % 2]
    return f'{probe} /execname == "dd"/ {{ {text.replace("@NAME", f"@a{number}")} }}'


def _by_clause(done: Outcome) -> dict[Any, Any]:
    """What each clause has recorded, and how it has failed; and every aggregation."""
    whole = shape(done)
    found: dict[Any, Any] = dict(whole["tables"])
    for cpu, probe, clause, items in whole["fired"]:
        found.setdefault(clause, []).append((cpu, probe, items))
    for event in whole["trouble"]:
        found.setdefault(getattr(event, "clause", "trouble"), []).append(event)
    return found


def test_thousands_of_expressions_are_the_same(guest: Guest, homes: object, constant: int) -> None:
    cases = _cases(constant, CASES)
    assert len(cases) > 0.7 * CASES
    functions = Counter(re.findall(r"^@NAME.*?= (\w+)\(", "\n".join(cases), re.MULTILINE))
    assert set(functions) == set(AGGREGATING)
    assert sum("json(" in text for text in cases) > 5
    for first in range(0, len(cases), TOGETHER):
        _same_by_both(guest, cases[first : first + TOGETHER])


def _same_by_both(guest: Guest, cases: Sequence[str]) -> None:
    clauses = [_clause(number, text) for number, text in enumerate(cases)]
    script = "\n".join((DECLARATIONS, *clauses))
    options = Options(dynvarsize=1 << 16, aggsize=1 << 14, bufsize=1 << 22)
    found = [_by_clause(trace(guest, script, lines(guest, WORK), engine=e, options=options)) for e in ENGINES]
    assert any(found)
    wrong = {key for key in found[0].keys() | found[1].keys() if found[0].get(key) != found[1].get(key)}
    for key in sorted(wrong, key=repr)[:5]:
        text = clauses[key] if isinstance(key, int) else key
        print(f"{text}\n  guest {found[0].get(key)!r}\n  stop  {found[1].get(key)!r}")
    assert not wrong
