"""What a failed live test shows beside its error: the guest's console, and the command that runs it alone."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

FAILED = pytest.StashKey[bool]()
"""Of a test: whether it has failed."""

_CONSOLE_BYTES = 6000
_COSTLY = 10.0  # seconds


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Add the sections to the report of a test that failed with a guest in its hands."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if not report.failed:
        return
    item.stash[FAILED] = True
    if item.get_closest_marker("guest") is None:
        return
    guest = getattr(item, "funcargs", {}).get("guest")
    if guest is not None:
        report.sections.append((f"console of {guest.name}, its end", console_end(guest.console)))
    report.sections.append(("to run it alone", f"make test PYTEST={shlex.quote(shlex.quote(item.nodeid))}"))


def console_end(path: Path) -> str:
    """The last of a console's output, controls escaped."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(size - _CONSOLE_BYTES, 0))
            text = stream.read().decode(errors="backslashreplace")
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text.replace("\r\n", "\n"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List what costs most, so that nobody has to ask where the minutes went."""
    spent: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                spent[report.nodeid] = spent.get(report.nodeid, 0.0) + report.duration
    costly = sorted(((seconds, name) for name, seconds in spent.items() if seconds >= _COSTLY), reverse=True)
    if costly:
        whole = sum(spent.values())
        share = sum(seconds for seconds, _ in costly) / whole
        terminalreporter.section(f"tests of {_COSTLY:.0f} s and more: {share:.0%} of {whole:.0f} s in all processes")
        for seconds, name in costly:
            terminalreporter.line(f"{seconds:6.1f} s  {name}")
