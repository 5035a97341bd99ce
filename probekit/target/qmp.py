"""Call QEMU's own machine protocol, QMP.

The stub does not report that a guest was reset, panicked or shut down; QMP
does, by *events* (``RESET``, ``GUEST_PANICKED``, ``SHUTDOWN``, ``STOP``). The
library ``qemu.qmp`` is asynchronous: it runs in one private thread, and each call
waits for it with a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecInterruptedError,
    ExecuteError,
    QMPClient,
    QMPError,
    Runstate,
    StateError,
)

from probekit.errors import Cancelled, TargetError, TargetLost, TargetTimeout
from probekit.interruption import check_interrupted

__all__ = ("Qmp",)

_T = TypeVar("_T")
_MAX_EVENTS: Final = 4096
_SLICE: Final = 0.1  # seconds between two looks at whether the user wants to stop


class Qmp:
    """One QMP connection. Calls may come from any thread. Use as a context manager, or :meth:`close`."""

    def __init__(self, path: str, *, timeout: float = 5.0) -> None:
        """Connect to the unix socket ``path``. ``timeout``: seconds for this and for each call.

        Raises :class:`TargetError` (nothing there), :class:`TargetTimeout` (another client is being served).
        """
        self.path = path
        self.timeout = timeout
        self._client = QMPClient("probekit")
        self._listener = EventListener()
        self._client.register_listener(self._listener)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        try:
            self._call(self._client.connect(path), f"connecting to {path}")
        except (TargetError, Cancelled):
            self.close()
            raise

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command and return its answer. ``_`` in a keyword stands for ``-``.

        Raises :class:`TargetError` with QEMU's words, :class:`TargetTimeout`, :class:`TargetLost`.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._call(self._client.execute(command, named or None), f"{command}")

    def status(self) -> str:
        """Return ``running``, ``paused``, ``debug``, ``shutdown``, ``guest-panicked`` ..."""
        return str(self.execute("query-status")["status"])

    def events(self) -> list[dict[str, Any]]:
        """Return the events since the last call, oldest first, each with ``event`` (its name) and perhaps ``data``."""
        return self._call(self._drain(), "reading events")

    def close(self) -> None:
        """Disconnect and end the thread. Safe to call twice."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(TargetError):
            if self._client.runstate is not Runstate.IDLE:
                self._call(self._client.disconnect(), "disconnecting")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _drain(self) -> list[dict[str, Any]]:
        return [dict(message) for message in self._listener.clear()[-_MAX_EVENTS:]]

    def _result(self, future: Future[_T]) -> _T:
        """Wait for an answer, at most twice the limit. A wait that may be interrupted is."""
        deadline = time.monotonic() + 2 * self.timeout
        while True:
            try:
                return future.result(min(_SLICE, max(deadline - time.monotonic(), 0.0)))
            except TimeoutError:
                if future.done() or time.monotonic() >= deadline:
                    raise
            try:
                check_interrupted()
            except Cancelled:
                future.cancel()
                raise

    def _call(self, work: Coroutine[Any, Any, _T], doing: str) -> _T:
        if self._loop.is_closed():
            work.close()
            raise TargetLost(f"qmp: {self.path}: the connection is closed")
        # wait_for lets the library clean up before it gives up; a limit on the future would not.
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, self.timeout), self._loop)
        try:
            return self._result(future)
        except TimeoutError as problem:
            raise TargetTimeout(
                f"qmp: {doing}: no answer within {self.timeout:g} s",
                seconds=self.timeout,
                hint="a QMP socket serves one client: is another one connected?",
            ) from problem
        except ExecuteError as problem:
            raise TargetError(f"qmp: {doing}: {problem}") from problem
        except ConnectError as problem:
            raise TargetError(
                f"qmp: {doing}: {problem}", hint="start QEMU with -qmp unix:PATH,server=on,wait=off"
            ) from problem
        except (ExecInterruptedError, StateError, EOFError, OSError) as problem:
            raise TargetLost(f"qmp: {doing}: the connection is gone: {problem}") from problem
        except QMPError as problem:
            raise TargetError(f"qmp: {doing}: {problem}") from problem
