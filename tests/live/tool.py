"""``probekit`` as a user runs it, in a process of its own, and what it said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

__all__ = ("TICK", "Probekit", "Result", "Running")

# A tick fires on the host, and never before every probe is live.
_PERIOD = "tick-97ms"
TICK = f"{_PERIOD} {{ trace(0); }}"
LIMIT = 60.0


@dataclass(frozen=True)
class Result:
    """A probekit that has ended."""

    status: int
    stdout: str
    stderr: str

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The lines of ``--json``; each must parse."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one type."""
        return [event for event in self.events if event["type"] == kind]

    def table(self, name: str = "") -> dict[tuple[Any, ...], Any]:
        """One aggregation: key to value (or buckets)."""
        (found,) = [event for event in self.of("aggregation") if event["name"] == name]
        return {tuple(row["key"]): row.get("value", row.get("buckets")) for row in found["data"]}

    def fired(self, name: str = "") -> list[dict[str, Any]]:
        """Records of the script's own probes, the live tick left out."""
        return [e for e in self.of("probe") if e["probe"]["name"] != _PERIOD and name in ("", e["probe"]["name"])]

    @property
    def said(self) -> list[str]:
        """The lines of standard error. How late ticks were on a busy machine is left out."""
        return [line for line in self.stderr.splitlines() if " missed firing" not in line]

    @property
    def lost(self) -> list[dict[str, Any]]:
        """The drops. How late ticks were on a busy machine is left out."""
        return [drop for drop in self.of("drop") if drop["kind"] != "missed"]

    @property
    def stats(self) -> dict[str, Any]:
        """What it took."""
        (found,) = self.of("stats")
        return found

    def paragraph(self) -> str:
        """What was said about an error, which has to be one paragraph without a traceback."""
        said = [line for line in self.stderr.splitlines() if line]
        assert "Traceback" not in self.stderr, self.stderr
        assert said and len(said) <= 12 and said[0].startswith("probekit: "), self.stderr
        assert all(len(line) < 500 for line in said)
        return self.stderr


@dataclass
class Running:
    """One that runs. ``lines``: its output so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    live: threading.Event = field(default_factory=threading.Event)
    _readers: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        for stream, sink in ((self.process.stdout, self.lines), (self.process.stderr, self.errors)):
            if stream is not None:
                reader = threading.Thread(target=self._read, args=(stream, sink), daemon=True)
                reader.start()
                self._readers.append(reader)

    def _read(self, stream: Any, sink: list[str]) -> None:
        for line in stream:
            sink.append(line)
            if _PERIOD in line and '"probe"' in line:
                self.live.set()

    def wait_live(self, limit: float = LIMIT) -> Running:
        """Until the tick clause has fired: all probes are live then."""
        deadline = time.monotonic() + limit
        while not self.live.wait(0.02):
            assert self.process.poll() is None, f"ended early: {self.process.returncode}\n{''.join(self.errors)}"
            assert time.monotonic() < deadline, f"does not trace\n{''.join(self.errors)}"
        return self

    def wait_line(self, text: str, limit: float = LIMIT) -> None:
        """Until a line of its output contains ``text``."""
        deadline = time.monotonic() + limit
        while not any(text in line for line in [*self.lines]):
            assert self.process.poll() is None and time.monotonic() < deadline, "".join(self.errors)
            time.sleep(0.001)

    def wait_said(self, text: str, limit: float = LIMIT) -> None:
        """Until a line of its error output contains ``text`` (progress, with ``-v``)."""
        deadline = time.monotonic() + limit
        while not any(text in line for line in [*self.errors]):
            assert self.process.poll() is None and time.monotonic() < deadline, "".join(self.errors)
            time.sleep(0.002)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def finish(self, number: int | None = None, limit: float = LIMIT) -> Result:
        """Send a signal if one is given, and wait for the end."""
        if number is not None and self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"probekit does not end\n{''.join(self.errors)}") from None
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return Result(status, "".join(self.lines), "".join(self.errors))


class Probekit:
    """The command, its target and environment."""

    def __init__(self, spec: str, env: Mapping[str, str]) -> None:
        self.spec = spec
        self.env = dict(env)
        self._started: list[Running] = []

    def start(self, *args: str, target: bool = True, env: Mapping[str, str] | None = None, **popen: Any) -> Running:
        """Run it with these arguments, behind ``-r``."""
        first, rest = (args[:1], args[1:]) if args[:1] == ("recover",) else ((), args)
        aim = ("-r", self.spec) if target else ()
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
        process = subprocess.Popen(
            [sys.executable, "-m", "probekit", *first, *aim, *rest],
            text=True,
            errors="replace",
            env={**self.env, **(env or {})},
            start_new_session=True,
            **options,
        )
        running = Running(process)
        self._started.append(running)
        return running

    def run(self, *args: str, limit: float = LIMIT, **popen: Any) -> Result:
        """Run it to its end."""
        return self.start(*args, **popen).finish(limit=limit)

    def live(self, *clauses: str, options: tuple[str, ...] = ()) -> Running:
        """Trace with ``--json``; returns when every probe is live. The tick that tells so is ours."""
        names = [word for clause in (*clauses, TICK) for word in ("-n", clause)]
        return self.start("--json", *options, *names).wait_live()

    def recover(self, *args: str) -> Result:
        """``probekit recover``."""
        return self.run("recover", *args)

    def end_all(self) -> None:
        """What a failed test left running ends as a user would end it, so that the guest is restored."""
        for running in self._started:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
                try:
                    running.process.wait(30)
                except subprocess.TimeoutExpired:
                    running.process.kill()
            running.finish()
