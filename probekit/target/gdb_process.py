"""Run a gdb process and speak MI, gdb's machine interface, with it through pygdbmi.

A command is one line with a *token*; its answer is the *result record* with
the same token. Stops come as *notifications* in between, and what gdb or the
hypervisor's monitor prints comes as *stream* records.

pygdbmi waits ``time_to_check_for_additional_output_sec`` after every answer
for more. With its default of 0.2 s each command takes that long, 0 blocks
for the whole timeout, and 1e-6 works.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from pygdbmi.constants import GdbTimeoutError
from pygdbmi.gdbcontroller import GdbController

from probekit.errors import TargetError, TargetLost, TargetTimeout, UnsupportedError
from probekit.interruption import check_interrupted

__all__ = ("GdbProcess", "Record", "ask_monitor", "select_target")

Record = dict[str, Any]
"""One MI record as pygdbmi parses it: ``type``, ``message``, ``payload``, ``token``."""

_COMMAND: Final = ("gdb", "-nx", "-q", "--interpreter=mi3")
_SETUP: Final = (
    "set confirm off",
    "set pagination off",
    "set auto-load off",
    "set architecture i386:x86-64",
    "set language c",
    "set mi-async on",
    "set non-stop off",
    "set displaced-stepping off",
    "set breakpoint always-inserted on",
    "set breakpoint auto-hw off",
    "set can-use-hw-watchpoints 1",
    "set stack-cache off",
    "set code-cache off",
    "set disassemble-next-line off",
    "set debuginfod enabled off",
    "set width 0",
)
_IN_FLIGHT_BYTES: Final = 24_000  # less than a pipe's 64 KiB, so that gdb and we never both wait to write
_IN_FLIGHT: Final = 64
_SLICE_SECONDS: Final = 0.1
_EXIT_SECONDS: Final = 2.0
_SILENCE: Final = 0.5  # seconds without an answer, after which a command may be given up
_MAX_QUEUED: Final = 10_000


class GdbProcess:
    """One gdb, ours alone: started here and ended by :meth:`close`. Not thread-safe."""

    def __init__(self, *, timeout: float) -> None:
        """Start gdb. ``timeout``: seconds that one command may take. Raises :class:`UnsupportedError` without gdb."""
        if shutil.which(_COMMAND[0]) is None:
            raise UnsupportedError(
                "gdb: targets need the program gdb, which is not installed",
                feature="gdb",
                hint="install the package gdb (Debian, Ubuntu, Fedora: gdb), or give HOST:PORT or unix:PATH",
            )
        self.timeout = timeout
        self._gdb = GdbController(command=list(_COMMAND), time_to_check_for_additional_output_sec=1e-6)
        self._token = 0
        self._gone = False
        self._results: dict[int, Record] = {}
        self._stops: deque[Record] = deque(maxlen=_MAX_QUEUED)
        self._texts: deque[str] = deque(maxlen=_MAX_QUEUED)
        self._log: deque[str] = deque(maxlen=_MAX_QUEUED)

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._process().pid)

    def prepare(self) -> None:
        """Set gdb up for a kernel seen from outside: it caches, asks and loads nothing, and stops all vCPUs."""
        for line in _SETUP:
            self.console(line)

    def command(self, text: str, *, timeout: float | None = None, heed: bool = False) -> Any:
        """Run one MI command and return the payload of its result. ``heed``: it may be given up once gdb is silent.

        Raises :class:`TargetError` with gdb's words, :class:`TargetTimeout`, :class:`TargetLost`, and with ``heed``
        :class:`Cancelled`.
        """
        result = self.commands([text], timeout=timeout, heed=heed)[0]
        if result["message"] == "error":
            raise self._error(result, text)
        return result["payload"]

    def commands(self, texts: Sequence[str], *, timeout: float | None = None, heed: bool = False) -> list[Record]:
        """Run many MI commands, several in flight, and return the result record of each, errors included.

        ``heed``: see :meth:`command`.
        """
        limit = self.timeout if timeout is None else timeout
        waiting: deque[tuple[int, int]] = deque()
        results: list[Record] = []
        size = 0
        for text in texts:
            self._token += 1
            line = f"{self._token}{text}\n"
            while waiting and (size + len(line) > _IN_FLIGHT_BYTES or len(waiting) >= _IN_FLIGHT):
                size -= waiting[0][1]
                results.append(self._result(waiting.popleft()[0], text, limit, heed=heed))
            self._write(line)
            waiting.append((self._token, len(line)))
            size += len(line)
        results += [self._result(token, texts[-1], limit, heed=heed) for token, _ in waiting]
        return results

    def console(self, command: str, *, timeout: float | None = None) -> str:
        """Run a command of gdb's own language and return what gdb and the hypervisor's monitor printed."""
        self._texts.clear()
        quoted = command.replace("\\", "\\\\").replace('"', '\\"')
        self.command(f'-interpreter-exec console "{quoted}"', timeout=timeout)
        return "".join(self._texts)

    def next_stop(self, seconds: float) -> Record | None:
        """Return the next ``*stopped`` payload, or None after ``seconds``. Raises :class:`TargetLost`."""
        deadline = time.monotonic() + seconds
        while not self._stops:
            if self._gone:
                raise TargetLost("gdb lost the machine", hint="did the virtual machine end?")
            remaining = deadline - time.monotonic()
            if not self._read(remaining) and remaining <= 0:
                return None
        return self._stops.popleft()

    def drop_stops(self) -> None:
        """Drop the stops that gdb has reported and that were not read yet."""
        self._stops.clear()

    def take_log(self) -> str:
        """Return what gdb logged since the last call, such as what ``set debug remote 1`` makes it say."""
        text = "".join(self._log)
        self._log.clear()
        return text

    def close(self, seconds: float = _EXIT_SECONDS) -> None:
        """End gdb, which gets ``seconds`` to do so by itself. Safe to call twice."""
        process = self._gdb.gdb_process
        if process is None:
            return
        with contextlib.suppress(TargetLost):
            self._write("-gdb-exit\n")
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._gdb.gdb_process = None

    def _process(self) -> Any:
        if self._gdb.gdb_process is None:
            raise TargetLost("gdb has been ended")
        return self._gdb.gdb_process

    def _write(self, line: str) -> None:
        try:
            # Not GdbController.write: it silently drops a command that the pipe does not take at once.
            self._process().stdin.write(line.encode())
        except (BrokenPipeError, ValueError) as problem:
            raise TargetLost("gdb has ended") from problem

    def _result(self, token: int, text: str, limit: float, *, heed: bool) -> Record:
        begun = time.monotonic()
        deadline = begun + limit
        while token not in self._results:
            if heed and time.monotonic() > begun + _SILENCE:
                check_interrupted()
            remaining = deadline - time.monotonic()
            if not self._read(remaining) and remaining <= 0:
                raise TargetTimeout(
                    f"gdb did not answer {text[:60]!r} within {limit:g} s",
                    seconds=limit,
                    hint="a gdb stub serves one client: is another debugger attached?",
                )
        return self._results.pop(token)

    def _read(self, seconds: float) -> bool:
        """Sort what gdb says next into results, stops and texts. Returns False when it said nothing for ``seconds``."""
        process = self._process()
        # In slices: pygdbmi does not notice that gdb has ended, and spins until the limit.
        wait = min(max(seconds, 1e-6), _SLICE_SECONDS)
        try:
            records = self._gdb.io_manager.get_gdb_response(wait, raise_error_on_timeout=False)
        except (GdbTimeoutError, ValueError, OSError) as problem:
            raise TargetLost("gdb has ended") from problem
        if not records and process.poll() is not None:
            raise TargetLost(f"gdb has ended (status {process.returncode})")
        for record in records:
            if record["type"] == "result" and record.get("token") is not None:
                self._results[record["token"]] = record
            elif record["type"] == "notify" and record["message"] == "stopped":
                self._stops.append(record["payload"] or {})
            elif record["type"] == "notify" and record["message"] == "thread-group-exited":
                # gdb says no more in MI when the connection breaks while the machine runs.
                self._gone = True
            elif record["type"] in ("console", "target"):
                self._texts.append(str(record["payload"] or ""))
            elif record["type"] == "log":
                self._log.append(str(record["payload"] or ""))
        return bool(records)

    def _error(self, result: Record, text: str) -> TargetError:
        payload = result["payload"]
        words = str(payload.get("msg", "") if isinstance(payload, dict) else payload)
        if self._gone or "Remote connection closed" in words or "Remote communication error" in words:
            return TargetLost(f"gdb: {words}", hint="did the virtual machine end?")
        return TargetError(f"gdb: {words or 'refused'} (command {text[:60]!r})")


def select_target(gdb: GdbProcess, address: str, timeout: float, *, name: str) -> None:
    """Connect gdb to ``address``: what ``target remote`` takes, ``unix:PATH``, or ``extended-remote ADDRESS``.

    ``name``: the target as the user gave it. Raises :class:`TargetTimeout` after ``timeout`` seconds.
    """
    kind, _, rest = address.partition(" ")
    if kind not in ("remote", "extended-remote"):
        kind, rest = "remote", address
    rest = rest.strip().removeprefix("unix:")
    # gdb retries a refused connection by itself, and would wait longest for a stub that does not answer.
    gdb.console(f"set tcp connect-timeout {max(1, int(timeout))}")
    gdb.console(f"set remotetimeout {max(1, int(timeout))}")
    try:
        gdb.command(f"-target-select {kind} {rest}", timeout=timeout + 1, heed=True)
    except TargetTimeout as problem:
        raise TargetTimeout(
            f"{name}: no gdb stub answers within {timeout:g} s", seconds=timeout, hint=problem.hint
        ) from None
    # gdb sends a packet again after this time, and gives up after three.
    gdb.console("set remotetimeout 3")


def ask_monitor(gdb: GdbProcess, command: str, *, name: str) -> str:
    """Return what the stub's monitor prints for ``command``. ``name``: the target as the user gave it.

    Raises :class:`UnsupportedError` for a stub without a monitor, and any other :class:`TargetError`.
    """
    try:
        text = gdb.console(f"monitor {command}")
    except TargetLost:
        raise
    except TargetError as problem:
        if "not supported" in problem.message:
            raise UnsupportedError(f"{name}: the stub has no monitor", feature="monitor") from problem
        raise
    return text.replace("\r\n", "\n")
