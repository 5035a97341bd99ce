"""A gdb that answers MI commands from a table, for tests of what is built on :class:`GdbProcess`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from probekit.errors import TargetError

Answer = dict[str, Any] | str | Callable[[str], "dict[str, Any] | str"]
"""The payload of a result; a text is gdb's refusal."""


class ScriptedGdb:
    """A gdb whose machine does nothing by itself.

    ``answers``: by the beginning of a command, the longest first. ``sent``: every command, in order. ``stops``: those
    that are still to be reported.
    """

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.answers = dict(answers or {})
        self.sent: list[str] = []
        self.stops: list[dict[str, Any]] = []
        self.closed = False

    def commands(
        self, texts: Sequence[str], *, timeout: float | None = None, heed: bool = False
    ) -> list[dict[str, Any]]:
        return [self._record(text) for text in texts]

    def command(self, text: str, *, timeout: float | None = None, heed: bool = False) -> Any:
        record = self._record(text)
        if record["message"] == "error":
            raise TargetError(f"gdb: {record['payload']['msg']}")
        return record["payload"]

    def _record(self, text: str) -> dict[str, Any]:
        self.sent.append(text)
        found = max((start for start in self.answers if text.startswith(start)), key=len, default=None)
        answer = self.answers[found] if found is not None else {}
        if callable(answer):
            answer = answer(text)
        if isinstance(answer, str):
            return {"message": "error", "payload": {"msg": answer}}
        return {"message": "done", "payload": answer}

    def prepare(self) -> None:
        self.sent.append("(prepared)")

    def console(self, command: str, *, timeout: float | None = None) -> str:
        return str(self.command(command).get("text", ""))

    def next_stop(self, seconds: float) -> dict[str, Any] | None:
        return self.stops.pop(0) if self.stops else None

    def drop_stops(self) -> None:
        self.sent.append("(stops dropped)")

    def take_log(self) -> str:
        return ""

    def close(self, seconds: float = 2.0) -> None:
        self.closed = True
