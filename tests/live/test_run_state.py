"""Somebody else stops the guest, or lets it run: an operator in the monitor, a migration, a debugger that has left."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from probekit.target.connect import connect
from probekit.target.qmp import Qmp
from tests.guest_fixtures import K61, K612, only
from tests.live.tool import Probekit, Running
from tests.live.work import getppid_on_each_cpu, our_memory
from vm.guest import Guest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

# Who stops the guest does not depend on its kernel. What is called in it does, and what is freed: those run on both.
CALLS = 3000
COUNT = 'fbt::__x64_sys_getppid:entry /execname == "syscalls"/ { @n = count(); }'
# Each leaves a paused guest paused. What they say and how they end is the same as with a guest that runs.
COMMANDS = {
    "list": (("-l", "-n", "fbt::vfs_read:"), 0),
    "compile": (("-e", "-n", "fbt::vfs_read:entry { @ = count(); }"), 0),
    "begin": (("-q", "-n", 'BEGIN { printf("began\\n"); exit(0); }'), 0),
    "recover": (("recover",), 0),
    "no such probe": (("-n", "fbt::no_such_function:entry { @ = count(); }"), 1),
    "error": (("-n", "BEGIN { nonsense }"), 1),
}


class Operator:
    """Somebody at QEMU's monitor."""

    def __init__(self, guest: Guest) -> None:
        self._qmp = Qmp(guest.qmp2.removeprefix("unix:"), timeout=60)
        self._guest = guest

    def execute(self, command: str, **arguments: object) -> Any:
        """One QMP command."""
        return self._qmp.execute(command, **arguments)

    def type(self, line: str) -> str:
        """One line of the human monitor."""
        return str(self.execute("human-monitor-command", command_line=line))

    def create(self, options: dict[str, object]) -> None:
        """Make a disk image."""
        self.execute("blockdev-create", job_id="create", options=options)
        while (job := self.execute("query-jobs"))[0]["status"] != "concluded":
            time.sleep(0.15)
        assert "error" not in job[0], job
        self.execute("job-dismiss", id="create")

    def status(self) -> str:
        return self._qmp.status()

    def resumes(self) -> int:
        """How often the guest was set running since the last call."""
        return sum(event["event"] == "RESUME" for event in self._qmp.events())

    def stop(self) -> None:
        self.type("stop")
        assert self.status() == "paused"
        self.resumes()

    def await_status(self, wanted: str, limit: float = 60) -> None:
        deadline = time.monotonic() + limit
        while self.status() != wanted:
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.15)

    def close(self) -> None:
        if self.status() != "running":
            self.type("cont")
        self._qmp.close()


@pytest.fixture
def operator(guest: Guest) -> Iterator[Operator]:
    somebody = Operator(guest)
    yield somebody
    somebody.close()
    assert guest.exec("true", timeout=60).status == 0


def still(operator: Operator, seconds: float = 1.2) -> None:
    """The guest is paused, and was not set running for a moment either."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert operator.status() == "paused"
        time.sleep(0.1)
    assert operator.resumes() == 0


def counted(running: Running) -> int:
    """End a trace as a user does, and return its one count."""
    done = running.finish(signal.SIGINT)
    assert done.status == 0, done.stderr
    return int(done.table("n")[()])


@only(K61)
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("through", ["", "gdb:"])
def test_a_paused_guest_is_left_paused(probekit: Probekit, operator: Operator, name: str, through: str) -> None:
    arguments, status = COMMANDS[name]
    tool = Probekit(through + probekit.spec, probekit.env)
    operator.stop()
    done = tool.run(*arguments)
    assert done.status == status, done.stderr
    still(operator, 0.2)
    if name == "begin":
        assert done.stdout.strip() == "began"


@only(K61)
@pytest.mark.parametrize("engine", ["guest", "stop"])
@pytest.mark.parametrize("through", ["", "gdb:"])
def test_probes_in_a_paused_guest_are_refused(
    probekit: Probekit, operator: Operator, engine: str, through: str
) -> None:
    operator.stop()
    done = Probekit(through + probekit.spec, probekit.env).run("--engine", engine, "-n", COUNT)
    assert done.status == 1
    assert "the guest is paused" in done.paragraph() and "`cont`" in done.stderr
    still(operator, 0.2)


@only(K61)
def test_qmp_says_that_it_is_paused(guest: Guest, probekit: Probekit, operator: Operator) -> None:
    operator.stop()
    done = probekit.run("--qmp", guest.qmp, "-n", COUNT)
    assert done.status == 1 and "the guest is paused" in done.stderr
    still(operator, 0.2)
    operator.type("cont")
    assert probekit.run("--qmp", guest.qmp, "-n", "BEGIN { exit(0); }").status == 0
    assert operator.status() == "running"


@only(K612)
@pytest.mark.parametrize("engine", ["guest", "stop"])
@pytest.mark.parametrize("ram", [(), ("--ram", "none")], ids=["shared", "stub"])
def test_stop_lasts_until_cont(
    guest: Guest, probekit: Probekit, operator: Operator, engine: str, ram: tuple[str, ...]
) -> None:
    calls = CALLS if engine == "guest" else 50
    work = getppid_on_each_cpu(guest, calls)
    running = probekit.live(COUNT, options=("--engine", engine, *ram))
    work()
    operator.stop()
    still(operator)
    operator.type("cont")
    work()
    assert counted(running) == 2 * calls * guest.smp
    assert operator.status() == "running"
    assert our_memory(guest) == []


@only(K61)
def test_stop_lasts_until_cont_through_gdb(guest: Guest, probekit: Probekit, operator: Operator) -> None:
    work = getppid_on_each_cpu(guest, CALLS)
    running = Probekit(f"gdb:{probekit.spec}", probekit.env).live(COUNT)
    work()
    operator.stop()
    still(operator)
    operator.type("cont")
    work()
    assert counted(running) == 2 * CALLS * guest.smp
    assert operator.status() == "running"


def test_ended_while_paused(guest: Guest, probekit: Probekit, operator: Operator) -> None:
    """The text is put back at once; memory waits for the guest, and `recover` frees it."""
    work = getppid_on_each_cpu(guest, CALLS)
    running = probekit.live(COUNT)
    work()
    operator.stop()
    time.sleep(0.3)
    begun = time.monotonic()
    done = running.finish(signal.SIGINT)
    assert time.monotonic() - begun < 10
    assert done.table("n")[()] == CALLS * guest.smp
    said = " ".join(event["text"] for event in done.of("message"))
    assert "the guest is paused" in said and "left behind" in said
    still(operator, 0.2)
    paused = probekit.recover()
    assert paused.status != 0 and "the guest is paused" in paused.stdout + paused.stderr
    still(operator, 0.2)
    operator.type("cont")
    assert probekit.recover().status == 0
    assert our_memory(guest) == []


@pytest.mark.parametrize("ram", [(), ("--ram", "none")], ids=["shared", "stub"])
def test_cont_while_we_have_it_stopped(
    guest: Guest, probekit: Probekit, operator: Operator, ram: tuple[str, ...]
) -> None:
    """Somebody types `cont` six times a second, from before attaching until after restoring."""
    over = threading.Event()
    typed = 0

    def type_cont() -> None:
        nonlocal typed
        while not over.is_set():
            operator.type("cont")
            typed += 1
            time.sleep(0.15)

    thread = threading.Thread(target=type_cont)
    thread.start()
    try:
        work = getppid_on_each_cpu(guest, CALLS)
        for _ in range(3):
            running = probekit.live(COUNT, options=ram)
            work()
            assert counted(running) == CALLS * guest.smp
    finally:
        over.set()
        thread.join()
    assert typed > 40
    assert our_memory(guest) == []


@only(K61)
def test_killed_while_it_had_the_guest_stopped(guest: Guest, probekit: Probekit, operator: Operator) -> None:
    """The next probekit knows that from an operator's pause."""
    running = probekit.start("-v", "-l", "-n", "fbt:::entry")
    deadline = time.monotonic() + 60
    while operator.status() == "running":
        assert time.monotonic() < deadline
    running.process.kill()
    running.finish()
    assert operator.status() == "paused"
    done = probekit.run("-v", "-n", "BEGIN { exit(0); }")
    assert done.status == 0 and "was killed" in done.stderr
    assert operator.status() == "running"


# Dies at the n-th note of who holds the guest: before it is written, or at the next bytes to the stub.
DYING = """
import os, signal, socket, sys
from probekit.cli.main import main
from probekit.session.lock import Lock
left, write, send = int(sys.argv[1]), Lock._write, socket.socket.send
def die(*ignored):
    os.kill(os.getpid(), signal.SIGKILL)
def sending(sock, data):
    send(sock, data)
    die()
def dying(lock, hold):
    global left
    left -= 1
    if left == 0 and sys.argv[2] == "before":
        die()
    if left == 0:
        socket.socket.send = sending
    write(lock, hold)
Lock._write = dying
sys.exit(main(sys.argv[3:]))
"""


@only(K61)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_note_of_who_holds_the_guest(
    guest: Guest, probekit: Probekit, operator: Operator, when: str
) -> None:
    """The next probekit lets the guest run, if this one has left it stopped."""
    program, status, number, left_stopped = ("-n", "BEGIN { exit(0); }"), -signal.SIGKILL, 0, 0
    while status == -signal.SIGKILL:
        number += 1
        command = [sys.executable, "-c", DYING, str(number), when, "-r", guest.gdb, *program]
        status = subprocess.run(command, env=probekit.env, capture_output=True, timeout=60, check=False).returncode
        if operator.status() != "running":
            left_stopped += 1
            assert probekit.run(*program).status == 0
        assert operator.status() == "running", number
    assert status == 0 and number > 4 and left_stopped > 0


@only(K61)
def test_a_debugger_left_it_stopped(guest: Guest, probekit: Probekit, operator: Operator) -> None:
    debugger = connect(guest.gdb, timeout=10)
    debugger._session.link.close()  # type: ignore[attr-defined]
    operator.await_status("paused")
    operator.resumes()
    assert probekit.run("-n", "BEGIN { exit(0); }").status == 0
    still(operator, 0.2)


@only(K61)
def test_migrated_away(guest: Guest, probekit: Probekit, operator: Operator) -> None:
    """The source is not set running again. Here it is resumed by hand afterwards, as if the migration had failed."""
    work = getppid_on_each_cpu(guest, CALLS)
    running = probekit.live(COUNT, options=("--ram", "none"))
    work()
    operator.type('migrate -d "exec:cat >/dev/null"')
    operator.await_status("postmigrate", 300)
    operator.resumes()
    time.sleep(1.5)
    done = running.finish(signal.SIGINT)
    assert done.table("n")[()] == CALLS * guest.smp
    assert operator.status() == "postmigrate" and operator.resumes() == 0
    assert probekit.run("-l", "-n", "fbt::vfs_read:").status == 1  # its memory is still there
    assert probekit.recover().status != 0
    assert operator.status() == "postmigrate" and operator.resumes() == 0
    operator.type("cont")
    assert probekit.recover().status == 0
    assert our_memory(guest) == []


@pytest.fixture
def snapshots(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the guest a disk that holds snapshots. It has no use for it otherwise."""
    path = str(tmp_path_factory.mktemp("disk") / "disk.qcow2")
    operator.create({"driver": "file", "filename": path, "size": 0})
    operator.execute("blockdev-add", driver="file", node_name="snapshot-file", filename=path)
    operator.create({"driver": "qcow2", "file": "snapshot-file", "size": 1 << 30})
    operator.execute("blockdev-add", driver="qcow2", node_name="snapshot-disk", file="snapshot-file")
    yield
    for name in ("snapshot-disk", "snapshot-file"):
        operator.execute("blockdev-del", node_name=name)


@only(K61)
def test_a_snapshot_from_before_a_trace_that_was_killed(
    guest: Guest, probekit: Probekit, operator: Operator, snapshots: object
) -> None:
    """Its journal is of this boot, and what it lists is not in the guest any more: `recover` ends it."""
    assert operator.type("savevm before") == ""
    running = probekit.live(COUNT)
    running.process.kill()
    running.finish()
    assert operator.type("loadvm before") == ""
    tried = probekit.run("-n", COUNT)
    assert tried.status == 1 and "`probekit recover" in tried.stderr
    done = probekit.recover()
    assert done.status == 0 and "1 journal(s) of probes that are gone" in done.stdout, done.stdout + done.stderr
    assert "snapshot was loaded; 1 sites have their original bytes" in done.stdout
    assert "nothing to recover" in probekit.recover().stdout
    assert our_memory(guest) == []
    running = probekit.live(COUNT)
    getppid_on_each_cpu(guest, CALLS)()
    assert counted(running) == CALLS * guest.smp


@only(K61)
def test_savevm_and_loadvm(guest: Guest, probekit: Probekit, operator: Operator, snapshots: object) -> None:
    work = getppid_on_each_cpu(guest, CALLS)
    assert operator.type("savevm before") == ""
    running = probekit.live(COUNT)
    work()
    assert operator.type("savevm within") == ""
    work()
    assert counted(running) == 2 * CALLS * guest.smp
    # The snapshot holds our probes, and they are still of this boot: `recover` knows them by their table.
    assert operator.type("loadvm within") == ""
    assert probekit.recover().status == 0
    assert our_memory(guest) == []
    running = probekit.live(COUNT)
    work()
    assert operator.type("loadvm before") == ""
    done = running.finish(limit=60)
    assert done.status == 1 and "snapshot" in done.stderr
    assert probekit.recover().status == 0
    assert our_memory(guest) == []
