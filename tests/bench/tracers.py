"""The three tracers: started, awaited until their probes are live, ended, and asked what they counted."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from vm.guest import Background, Guest

__all__ = ("BenchError", "Bpftrace", "Outcome", "Probekit", "gdb_firings", "probekit_command", "recover", "total")

_END_SECONDS = 120.0
_TICK_SECONDS = 0.2
_GDB_SCRIPT = Path(__file__).with_name("gdb_count.py")


class BenchError(Exception):
    """A tracer did not do what it was asked. The message says what it said."""


def total(value: object) -> int:
    """All counts in an aggregation's or a map's JSON, histograms included."""
    if isinstance(value, bool) or value is None:
        return 0
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        if "count" in value:
            return total(value["count"])
        if "value" in value:
            return total(value["value"])
        return sum(total(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(total(part) for part in value)
    return 0


def probekit_command() -> tuple[str, ...]:
    """The command of this environment."""
    return (str(Path(sys.executable).with_name("probekit")),)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of probekit said: its statistics, its aggregations, how many probes, and when (``time.time()``).

    ``attached``: it has read what it needs from the guest; ``live``: its probes are enabled.
    """

    stats: Mapping[str, float]
    aggregations: Sequence[Mapping[str, Any]]
    probes: int
    started: float
    attached: float
    live: float
    interrupted: float
    ended: float

    @property
    def count(self) -> int:
        """The sum of all aggregations."""
        return sum(total(a["data"]) for a in self.aggregations)

    @property
    def enable_s(self) -> float:
        """From typing to live probes."""
        return self.live - self.started

    @property
    def disable_s(self) -> float:
        """From Ctrl-C to the end of the process."""
        return self.ended - self.interrupted


@dataclass
class Probekit:
    """probekit on ``guest`` with a script, live inside a ``with`` block; ``outcome`` holds after it.

    ``environment``: changes, such as another XDG_CACHE_HOME for a cold start.
    """

    guest: Guest
    script: str
    engine: str = "guest"
    environment: Mapping[str, str] = field(default_factory=dict)
    outcome: Outcome | None = None

    def __enter__(self) -> Probekit:
        self._live = threading.Event()
        self._attached_at = self._live_at = 0.0
        self._lines: list[Mapping[str, Any]] = []
        self._messages = tempfile.TemporaryFile("w+")
        # A script file, for a list of a thousand functions; a tick fires only once all probes are live.
        self._file = tempfile.NamedTemporaryFile("w", suffix=".d")
        self._file.write(f"{self.script}\ntick-{_TICK_SECONDS * 1000:.0f}ms {{ trace(0); }}\n")
        self._file.flush()
        argv = (*probekit_command(), "--json", "--engine", self.engine, "-r", self.guest.gdb, "-s", self._file.name)
        self._started = time.time()
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait_live()
        except BaseException:
            self._end()
            raise
        return self

    def _read(self) -> None:
        for line in self._process.stdout or ():
            event = json.loads(line)
            if event.get("type") == "probe" and event["probe"]["name"].startswith("tick-"):
                if not self._live.is_set():
                    # It fires one period after everything is live.
                    self._live_at = time.time() - _TICK_SECONDS
                    self._live.set()
            else:
                if event.get("type") == "attached":
                    self._attached_at = self._attached_at or time.time()
                self._lines.append(event)

    def _wait_live(self) -> None:
        deadline = time.monotonic() + _END_SECONDS
        while not self._live.wait(0.02):
            if self._process.poll() is not None:
                raise self._error(f"ended with status {self._process.returncode} before it traced")
            if time.monotonic() > deadline:
                raise self._error(f"does not trace after {_END_SECONDS:g} s")

    def _error(self, text: str) -> BenchError:
        self._messages.seek(0)
        return BenchError(f"probekit {text}: {self.script[:200]}\n{self._messages.read()[-2000:]}")

    def _end(self) -> None:
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._reader.join(5)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._file.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        interrupted = time.time()
        self._end()
        ended = time.time()
        with self._messages:
            if error is not None:
                return
            if self._process.returncode != 0:
                raise self._error(f"ended with status {self._process.returncode}")
        kinds: dict[str, list[Mapping[str, Any]]] = {}
        for event in self._lines:
            kinds.setdefault(event["type"], []).append(event)
        stats = {k: v for event in kinds.get("stats", ()) for k, v in event.items() if k != "type"}
        self.outcome = Outcome(
            stats=stats,
            aggregations=kinds.get("aggregation", ()),
            probes=sum(event["probes"] for event in kinds.get("attached", ())),
            started=self._started,
            attached=self._attached_at,
            live=self._live_at,
            interrupted=interrupted,
            ended=ended,
        )

    @property
    def result(self) -> Outcome:
        """The outcome, known after the ``with`` block."""
        assert self.outcome is not None
        return self.outcome


def recover(guest: Guest) -> str:
    """What ``probekit recover`` says of the guest. Raises :class:`BenchError` if it fails."""
    done = subprocess.run(
        (*probekit_command(), "recover", "-r", guest.gdb), capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise BenchError(f"probekit recover ended with status {done.returncode}\n{done.stderr}")
    return (done.stdout + done.stderr).strip()


@dataclass
class Bpftrace:
    """bpftrace in the guest, live inside a ``with`` block; ``count``, the sum of its maps, holds after it.

    ``patience``: seconds between two signals that it shall end; with many probes that takes it long, and a second
    signal ends it before it has written its maps.
    """

    guest: Guest
    script: str
    patience: int = 6
    count: int = 0

    def __enter__(self) -> Bpftrace:
        self._running: Background = self.guest.spawn(f"exec bpftrace -f json -e {shlex.quote(self.script)}")
        # Nothing else in the guest has kprobes. The list may show the function by an alias, so its name is no help.
        probes = "/sys/kernel/debug/kprobes/list"
        # It says how many there will be before the first is there.
        said = rf"sed -n 's/.*attached_probes.*: \([0-9]*\)}}.*/\1/p' {self._running.output_path}"
        there = f"n=$({said}); [ ${{n:-0}} -gt 0 ] && [ $(grep -c . {probes}) -ge $n ] && ! grep -q DISABLED {probes}"
        wait = f"i=0; until {there}; do i=$((i+1)); [ $i -le 1000 ] || exit 1; sleep 0.2; done; sleep 0.2"
        try:
            self.guest.check(wait, timeout=240)
        except BaseException:
            self._running.stop("KILL")
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # bpftrace 0.17 loses a signal that comes between two of its polls, so it is sent again.
        status = f"{self._running.output_path}.status"
        looks = f"$(seq {5 * self.patience})"
        asking = f"kill -INT -- -{self._running.pid}; for i in {looks}; do test -e {status} && exit; sleep 0.2; done"
        limit = max(_END_SECONDS, 3 * self.patience)
        self.guest.check(f"while ! test -e {status}; do ({asking}) 2>/dev/null; done", timeout=limit)
        done = self._running.wait()
        if error is not None:
            return
        # Writing its maps takes longer than a second when there are stacks in them; then it ends by the second signal.
        if done.status not in (0, 130):
            raise BenchError(f"bpftrace ended with status {done.status}: {self.script}\n{done.output}")
        maps = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
        self.count = sum(total(m["data"]) for m in maps if m["type"] in ("map", "hist"))


def gdb_firings(guest: Guest, address: int, firings: int) -> float:
    """Firings a second of a gdb Python breakpoint whose ``stop`` counts and returns False."""
    socket = guest.gdb.removeprefix("unix:")
    environment = {
        **os.environ,
        "BENCH_ADDRESS": hex(address),
        "BENCH_FIRINGS": str(firings),
        "BENCH_SOCKET": socket,
    }
    done = subprocess.run(
        ("gdb", "-nx", "-q", "-batch", "-x", str(_GDB_SCRIPT)),
        capture_output=True,
        text=True,
        check=False,
        timeout=_END_SECONDS,
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    for line in done.stdout.splitlines():
        if line.startswith("BENCH "):
            return float(line.split()[1])
    raise BenchError(f"gdb counted nothing\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}")
