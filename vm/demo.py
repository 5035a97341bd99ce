"""Run ``python -m vm.demo``: boot a guest, count its system calls with probekit, compare, clean up.

probekit runs as its own command, as a user runs it. The guest's ``demo`` workload
starts once the probes are live, counts its own calls, and ends before Ctrl-C is
sent to probekit, so both must have counted the same::

      system call       probekit   workload
      getpid              29,161     29,161  ✓

The exit status is 0 if every count matches and the guest is unharmed. The guest
is stopped however this ends.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from vm.errors import VmError
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

__all__ = ("Comparison", "compare", "main", "parse_counts", "table")

_CLAUSE = 'fbt::sys_*:entry /execname == "demo"/ { @[probefunc] = count(); }'
# A tick fires on the host, and never before every probe is live.
_TICK = "tick-1s { trace(++seconds); }"
_SECONDS = 8
_ATTACH_SECONDS = 60.0
_RESTORE_SECONDS = 60.0
_PREFIX = "__x64_sys_"
_ROW = re.compile(r"^\s+([A-Za-z_]\S*)\s+(\d+)$")
_TICKED = re.compile(r"^\s*\d+\s+\d+\s+\S*:tick-1s\b")


class DemoError(VmError):
    """A part of the demo failed; the message names it."""


class _Ended(BaseException):
    """A signal asked us to end."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status
        """The exit status: 128 + the signal's number."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two counts of each system call."""

    rows: tuple[tuple[str, int, int], ...]
    """(system call, probekit's count, the workload's count)."""
    uncounted: tuple[tuple[str, int], ...]
    """(system call, count) for each system call that only probekit counted."""

    @property
    def matches(self) -> bool:
        """Whether there are rows and the counts are equal in all of them."""
        return bool(self.rows) and all(seen == made for _, seen, made in self.rows)


def parse_counts(lines: Sequence[str]) -> dict[str, int]:
    """Find the rows of an aggregation with one name as its key in everything that probekit printed."""
    return {found[1]: int(found[2]) for line in lines if (found := _ROW.match(line.rstrip())) is not None}


def compare(seen: Mapping[str, int], made: Mapping[str, int]) -> Comparison:
    """Compare counts; the rarest calls come first, as in DTrace.

    ``seen``: probekit's count by kernel function; ``made``: the workload's count by system call.
    """
    by_call = {function.removeprefix(_PREFIX): count for function, count in seen.items()}
    rows = sorted(((call, by_call.pop(call, 0), count) for call, count in made.items()), key=lambda row: row[1:])
    return Comparison(tuple(rows), tuple(sorted(by_call.items())))


def table(comparison: Comparison) -> str:
    """Return the rows as text, with a tick where the counts match."""
    lines = [f"  {'system call':<16}{'probekit':>10}{'workload':>11}"]
    for call, seen, made in comparison.rows:
        lines.append(f"  {call:<16}{seen:>10,}{made:>11,}  {'✓' if seen == made else '✗ differs'}")
    if comparison.uncounted:
        names = ", ".join(f"{call} {count:,}" for call, count in comparison.uncounted)
        said = f"Only probekit counted these calls of the workload's start, its end and its clock: {names}."
        lines += ["", *textwrap.wrap(said, 100, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(lines)


class _Tracer:
    """Runs the command, shows its output and keeps it. Its session is its own, so Ctrl-C comes only from us."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.lines: list[str] = []
        self.live = threading.Event()
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            print(f"  | {line}", end="", flush=True)
            self.lines.append(line)
            if _TICKED.match(line):
                self.live.set()

    def wait_live(self) -> None:
        """Wait until its probes are live. Raises :class:`DemoError`."""
        deadline = time.monotonic() + _ATTACH_SECONDS
        while not self.live.wait(0.05):
            status = self._process.poll()
            if status is not None:
                raise DemoError(f"probekit ended with status {status} before it traced anything")
            if time.monotonic() > deadline:
                raise DemoError(f"probekit does not trace after {_ATTACH_SECONDS:g} s")

    def interrupt(self) -> int:
        """Send Ctrl-C, wait until it has restored the guest, and return its exit status. Raises :class:`DemoError`."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(_RESTORE_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoError(f"probekit does not end {_RESTORE_SECONDS:g} s after Ctrl-C") from None
        self._reader.join(5)
        return status

    def __enter__(self) -> _Tracer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.interrupt()
        finally:
            # The command has ended or does not answer. The guest is stopped next.
            self._process.kill()
            self._process.wait()
            self._reader.join(5)
            if self._process.stdout is not None:
                self._process.stdout.close()


def _command() -> tuple[str, ...]:
    """Return this environment's probekit as a short command."""
    script = Path(sys.executable).with_name("probekit")
    if not script.exists():
        return (sys.executable, "-m", "probekit")
    here = Path.cwd()
    return (str(script.relative_to(here)) if script.is_relative_to(here) else str(script),)


def _say(text: str) -> None:
    print(text, flush=True)


def _trace(guest: Guest, seconds: float) -> Comparison:
    argv = (*_command(), "-r", guest.gdb, "-n", _CLAUSE, "-n", _TICK)
    _say("Attaching. The same by hand, while a guest runs:")
    _say(f"\n  {shlex.join(argv)}\n")
    with _Tracer(argv) as tracer:
        tracer.wait_live()
        _say(f"  (the probes are live: the guest starts its workload, for {seconds:g} s)")
        workload = guest.spawn(f"exec demo {seconds:g}")
        done = workload.wait(seconds + 60)
        _say("  (the workload has ended: Ctrl-C)")
        status = tracer.interrupt()
        lines = list(tracer.lines)
    if status != 0:
        raise DemoError(f"probekit ended with status {status}")
    if done.status != 0:
        raise DemoError(f"the workload ended with status {done.status}: {done.output.strip()}")
    return compare(parse_counts(lines), json.loads(done.output)["calls"])


def _recover(guest: Guest) -> None:
    """Run ``probekit recover``, which reports anything that a killed probekit left in the guest."""
    argv = (*_command(), "recover", "-r", guest.gdb)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_RESTORE_SECONDS)
    except subprocess.TimeoutExpired:
        raise DemoError(f"probekit recover does not end in {_RESTORE_SECONDS:g} s") from None
    _say(f"  $ {shlex.join(argv)}\n  | {(done.stdout + done.stderr).strip()}")
    if done.returncode != 0:
        raise DemoError(f"probekit recover ended with status {done.returncode}")


def _run(kernel: str, seconds: float) -> bool:
    started = time.monotonic()
    _say(f"Booting a guest, Debian's kernel {kernel}, nothing of probekit in it (a few seconds) ...")
    with Guest.start(kernel=kernel, name=f"demo-{os.getpid()}", progress=lambda text: _say(f"  {text}")) as guest:
        text = KernelCode.locate(guest)
        before = text.read()
        comparison = _trace(guest, seconds)
        _say(f"\nSystem calls of the workload, by function ({_PREFIX}...), as probekit and as it counted them:\n")
        _say(table(comparison) + "\n")
        _say("Looking for anything left in the guest:")
        _recover(guest)
        changed = differences(before, text.read())
        if changed:
            _say(f"  {len(changed)} bytes of its kernel's code differ from before, the first at {changed[0]:#x}")
        else:
            _say(f"  its kernel's code, {len(before):,} bytes, is the same as before")
        problems = guest.console_problems()
        _say("  its console is clean" if not problems else "  on its console:\n  " + "\n  ".join(problems))
    equal = sum(seen == made for _, seen, made in comparison.rows)
    calls = sum(seen for _, seen, _ in comparison.rows)
    _say(f"\n{equal} of {len(comparison.rows)} counts match, {calls:,} calls. The guest is stopped.")
    _say(f"{time.monotonic() - started:.0f} s in all.")
    return comparison.matches and not changed and not problems


def _on_signal(number: int, _: FrameType | None) -> None:
    raise _Ended(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m vm.demo", description="Count a guest's system calls.")
    parser.add_argument("--kernel", default="6.1-cloud", help="see: python -m vm kernels")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help=f"how long it works (default {_SECONDS})")
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    handlers = {number: signal.signal(number, _on_signal) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return 0 if _run(options.kernel, options.seconds) else 1
    except VmError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ndemo: ended by Ctrl-C; the guest is restored and stopped", file=sys.stderr)
        return 130
    except _Ended as ended:
        return ended.status
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
