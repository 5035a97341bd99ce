"""A gdb process: its answers go to the commands that asked, and a gdb that refuses, is silent or dies is an error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probekit.errors import Cancelled, TargetError, TargetLost, TargetTimeout, UnsupportedError
from probekit.interruption import interruptible
from probekit.target import gdb_process
from probekit.target.gdb_process import GdbProcess

# Speaks MI as gdb does: "echo" answers in pairs and in the wrong order, which MI allows.
_PROGRAM = """\
import re, sys
held = []
print("(gdb)", flush=True)
for line in sys.stdin:
    token, command = re.match(r"(\\d*)(.*)", line).groups()
    if command == "-gdb-exit":
        print(f"{token}^exit", flush=True)
        break
    if command == "-die":
        sys.exit(3)
    if command == "-silent":
        continue
    if command == "-refuse":
        out = f'{token}^error,msg="No such thing"'
    elif command == "-lost":
        out = f'{token}^error,msg="Remote connection closed"'
    elif command == "-go":
        out = f'{token}^running\\n*stopped,reason="signal-received",thread-id="2"'
    elif command == "-gone":
        out = f'{token}^running\\n=thread-group-exited,id="i1"'
    elif command.startswith("-interpreter-exec"):
        out = f'~"{command.count(chr(92))}"\\n@"monitor"\\n{token}^done'
    elif command.startswith("-echo"):
        held.append(f'{token}^done,value="{command[6:]}"')
        if len(held) < 2:
            continue
        out = "\\n".join(reversed(held))
        held.clear()
    else:
        out = f"{token}^done"
    print(out + "\\n(gdb)", flush=True)
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., GdbProcess]]:
    program = tmp_path / "gdb"
    program.write_text(f"#!{sys.executable}\n{_PROGRAM}")
    program.chmod(0o755)
    monkeypatch.setattr(gdb_process, "_COMMAND", (str(program),))
    started: list[GdbProcess] = []

    def make(timeout: float = 10.0) -> GdbProcess:
        started.append(GdbProcess(timeout=timeout))
        return started[-1]

    yield make
    for gdb in started:
        gdb.close()


def test_a_result_belongs_to_the_command_with_its_token(start: Callable[..., GdbProcess]) -> None:
    texts = [f"-echo {number}" for number in range(200)]
    results = start().commands(texts)
    assert [result["payload"]["value"] for result in results] == [str(number) for number in range(200)]


def test_a_refusal_is_raised_for_one_command_and_returned_among_many(start: Callable[..., GdbProcess]) -> None:
    gdb = start()
    with pytest.raises(TargetError, match="No such thing"):
        gdb.command("-refuse")
    assert [result["message"] for result in gdb.commands(["-ok", "-refuse", "-ok"])] == ["done", "error", "done"]


def test_a_closed_connection_is_a_lost_target(start: Callable[..., GdbProcess]) -> None:
    with pytest.raises(TargetLost, match="closed"):
        start().command("-lost")


def test_a_silent_gdb_is_given_up_after_the_limit(start: Callable[..., GdbProcess]) -> None:
    with pytest.raises(TargetTimeout) as caught:
        start().command("-silent", timeout=0.2)
    assert caught.value.seconds == 0.2


def test_a_silent_gdb_is_given_up_when_the_user_wants_to_stop(start: Callable[..., GdbProcess]) -> None:
    gdb = start()
    wanted = False
    with pytest.raises(Cancelled), interruptible(lambda: wanted):
        wanted = True
        assert gdb.commands(["-echo 1", "-echo 2"], heed=True)[0]["message"] == "done"  # it answers in time
        gdb.command("-silent", heed=True)
    assert gdb.command("-ok") is None  # its late answer is not taken for another's


def test_a_gdb_that_dies_is_a_lost_target(start: Callable[..., GdbProcess]) -> None:
    gdb = start()
    with pytest.raises(TargetLost, match="ended"):
        gdb.command("-die")
    gdb.close()
    with pytest.raises(TargetLost):
        gdb.command("-ok")


def test_console_commands_are_quoted_and_return_what_was_printed(start: Callable[..., GdbProcess]) -> None:
    assert start().console('echo "a" \\n') == "4monitor"  # \" twice, and \\ for the one before n


def test_a_stop_waits_until_it_is_read(start: Callable[..., GdbProcess]) -> None:
    gdb = start()
    assert gdb.next_stop(0.05) is None
    gdb.command("-go")
    assert gdb.next_stop(5) == {"reason": "signal-received", "thread-id": "2"}
    gdb.command("-go")
    gdb.command("-ok")
    gdb.drop_stops()
    assert gdb.next_stop(0.05) is None


def test_a_machine_that_ended_while_running_is_a_lost_target(start: Callable[..., GdbProcess]) -> None:
    gdb = start()
    gdb.command("-gone")
    with pytest.raises(TargetLost, match="lost the machine"):
        gdb.next_stop(5)


def test_closing_ends_the_process_and_may_be_repeated(start: Callable[..., GdbProcess]) -> None:
    gdb = start()
    process = gdb._process()
    gdb.close()
    gdb.close()
    assert process.poll() == 0


def test_without_gdb_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdb_process.shutil, "which", lambda _: None)
    with pytest.raises(UnsupportedError, match="not installed"):
        GdbProcess(timeout=1)
