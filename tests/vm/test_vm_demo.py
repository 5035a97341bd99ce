"""The demo's own arithmetic, and what a damaged guest or a failing probekit would make of it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from vm import demo
from vm.kernel_code import differences

OUTPUT = """\
probekit: description 'fbt::sys_*:entry ' matched 345 probes
CPU     ID                    FUNCTION:NAME
  0    346                         :tick-1s                 1
  0    346                         :tick-1s                 2

  __x64_sys_brk                                                     2
  __x64_sys_close                                                3336
  __x64_sys_getpid                                              33361
""".splitlines(keepends=True)


def test_only_the_aggregation_is_read() -> None:
    assert demo.parse_counts(OUTPUT) == {"__x64_sys_brk": 2, "__x64_sys_close": 3336, "__x64_sys_getpid": 33361}


def test_equal_counts_match_and_the_rest_is_told() -> None:
    comparison = demo.compare(demo.parse_counts(OUTPUT), {"getpid": 33361, "close": 3336})
    assert comparison.matches
    assert comparison.rows == (("close", 3336, 3336), ("getpid", 33361, 33361))
    assert comparison.uncounted == (("brk", 2),)


@pytest.mark.parametrize("made", [{"getpid": 33360}, {"getppid": 1}, {}])
def test_a_count_too_many_too_few_or_none_at_all(made: dict[str, int]) -> None:
    assert not demo.compare({"__x64_sys_getpid": 33361}, made).matches


def test_the_table_marks_each_row() -> None:
    text = demo.table(demo.compare({"__x64_sys_close": 3336, "__x64_sys_read": 1}, {"close": 3336, "read": 2}))
    close, read = (next(line for line in text.splitlines() if word in line) for word in ("close", "read"))
    assert close.split() == ["close", "3,336", "3,336", "✓"]
    assert read.split() == ["read", "1", "2", "✗", "differs"]


def test_changed_bytes_are_found() -> None:
    assert differences(b"abcd", b"abcd") == []
    assert differences(b"abcd", b"aXcY") == [1, 3]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder that leaves room for a socket's name, whatever pytest's own folders are called."""
    with TemporaryDirectory(prefix="pk-") as folder:
        yield Path(folder)


@pytest.mark.guest
def test_a_probekit_that_fails_ends_the_demo_and_the_guest(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    failing = "import sys; print('probekit: no'); sys.exit(5)"
    monkeypatch.setattr(demo, "_command", lambda: (sys.executable, "-c", failing))
    assert demo.main([]) == 1
    shown = capfd.readouterr()
    assert "| probekit: no" in shown.out
    assert "ended with status 5" in shown.err
    assert list(short_path.iterdir()) == []
