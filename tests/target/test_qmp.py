"""QEMU's machine protocol against a scripted server: answers, events, and each way in which it may fail."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probekit.errors import TargetError, TargetLost, TargetTimeout
from probekit.target.qmp import Qmp

_GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}


class ScriptedQmp:
    """Serves one client. ``received``: the commands; ``greeting``: None says nothing, as to a second client."""

    def __init__(self, path: Path, greeting: object = _GREETING) -> None:
        self.path = str(path)
        self.received: list[dict[str, object]] = []
        self._greeting = greeting
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path)
        self._server.listen()
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            self._client, _ = self._server.accept()
            if self._greeting is not None:
                self._send(self._greeting)
            pending = ""
            while data := self._client.recv(4096):
                pending = self._take(pending + data.decode())

    def _take(self, text: str) -> str:
        """Answer each whole command, and return the rest. Nothing ends a command but its last brace, as in QEMU."""
        while text.strip():
            try:
                command, end = json.JSONDecoder().raw_decode(text.lstrip())
            except ValueError:
                break
            text = text.lstrip()[end:]
            self._answer(command)
        return text

    def _answer(self, command: dict[str, object]) -> None:
        self.received.append(command)
        done: dict[str, object] = {"return": {}}
        match command["execute"]:
            case "silent":
                return
            case "hang-up":
                self.close()
                return
            case "query-status":
                done = {"return": {"status": "paused", "singlestep": False, "running": False}}
            case "refuse":
                done = {"error": {"class": "CommandNotFound", "desc": "The command refuse has not been found"}}
            case "reset-now":
                self._send({"event": "RESET", "timestamp": {"seconds": 1, "microseconds": 2}, "data": {"guest": True}})
        self._send(done | {name: command[name] for name in ("id",) if name in command})

    def _send(self, message: object) -> None:
        assert self._client is not None
        self._client.sendall(json.dumps(message).encode() + b"\r\n")

    def close(self) -> None:
        self._server.close()
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)
            self._client.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ScriptedQmp]]:
    made: list[ScriptedQmp] = []

    def make(**options: object) -> ScriptedQmp:
        made.append(ScriptedQmp(tmp_path / "qmp", **options))
        return made[-1]

    yield make
    for server in made:
        server.close()


def test_an_answer_is_returned_and_arguments_have_qemus_names(serve: Callable[..., ScriptedQmp]) -> None:
    server = serve()
    with Qmp(server.path) as qmp:
        assert qmp.status() == "paused"
        assert qmp.execute("set_link", cpu_index=1) == {}
    assert [command["execute"] for command in server.received] == ["qmp_capabilities", "query-status", "set_link"]
    assert server.received[-1]["arguments"] == {"cpu-index": 1}


def test_events_are_returned_once(serve: Callable[..., ScriptedQmp]) -> None:
    with Qmp(serve().path) as qmp:
        assert qmp.events() == []
        qmp.execute("reset-now")
        (event,) = qmp.events()
        assert (event["event"], event["data"]) == ("RESET", {"guest": True})
        assert qmp.events() == []


def test_a_refusal_has_qemus_words_and_the_connection_stays(serve: Callable[..., ScriptedQmp]) -> None:
    with Qmp(serve().path) as qmp:
        with pytest.raises(TargetError, match="has not been found"):
            qmp.execute("refuse")
        assert qmp.status() == "paused"


def test_a_command_that_is_not_answered_is_given_up(serve: Callable[..., ScriptedQmp]) -> None:
    with Qmp(serve().path, timeout=0.5) as qmp, pytest.raises(TargetTimeout) as caught:
        qmp.execute("silent")
    assert caught.value.seconds == 0.5


def test_a_server_that_is_busy_with_another_client_is_given_up(serve: Callable[..., ScriptedQmp]) -> None:
    with pytest.raises(TargetTimeout) as caught:
        Qmp(serve(greeting=None).path, timeout=0.3)
    assert "another one" in caught.value.hint


def test_a_connection_that_breaks_is_lost(serve: Callable[..., ScriptedQmp]) -> None:
    with Qmp(serve().path) as qmp, pytest.raises(TargetLost):
        qmp.execute("hang-up")


def test_a_socket_that_does_not_exist_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="connecting") as caught:
        Qmp(str(tmp_path / "none"))
    assert "-qmp unix:" in caught.value.hint


def test_a_closed_connection_refuses_and_may_be_closed_again(serve: Callable[..., ScriptedQmp]) -> None:
    qmp = Qmp(serve().path)
    qmp.close()
    qmp.close()
    assert not qmp._thread.is_alive()
    with pytest.raises(TargetLost, match="closed"):
        qmp.status()


@pytest.mark.parametrize("greeting", [{"hello": 1}, [], "QMP", {"QMP": 5}], ids=str)
def test_a_greeting_that_is_none_is_a_target_error(serve: Callable[..., ScriptedQmp], greeting: object) -> None:
    with pytest.raises(TargetError):
        Qmp(serve(greeting=greeting).path, timeout=2)
