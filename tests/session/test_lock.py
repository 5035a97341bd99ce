"""One probekit per guest, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from probekit.errors import BusyError
from probekit.session.lock import Hold, acquire

KEY = "unix:/run/gdb.sock"

# Takes the lock, says so, and waits for its input to end.
HOLDER = """
import sys
from pathlib import Path
from probekit.session.lock import acquire
lock = acquire(sys.argv[1], directory=Path(sys.argv[2]), command="probekit -n first")
print("held", flush=True)
sys.stdin.read()
"""


def hold(directory: Path, key: str = KEY) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, key, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.communicate(timeout=20)


def test_second_process_is_told_who_is_first(tmp_path: Path) -> None:
    child = hold(tmp_path)
    with pytest.raises(BusyError) as caught:
        acquire(KEY, directory=tmp_path)
    assert caught.value.pid == child.pid and "probekit -n first" in caught.value.message
    end(child)
    acquire(KEY, directory=tmp_path).release()


def test_other_guests_are_free(tmp_path: Path) -> None:
    child = hold(tmp_path)
    with acquire("unix:/run/other.sock", directory=tmp_path):
        pass
    end(child)


def test_death_releases(tmp_path: Path) -> None:
    child = hold(tmp_path)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=20)
    with acquire(KEY, directory=tmp_path):
        pass


def test_same_process_twice(tmp_path: Path) -> None:
    with acquire(KEY, directory=tmp_path):
        with pytest.raises(BusyError) as caught:
            acquire(KEY, directory=tmp_path)
        assert caught.value.pid == os.getpid()
    acquire(KEY, directory=tmp_path).release()


@pytest.mark.parametrize(
    "text", [b"", b"garbage", b'{"pid": "x", "command": 1}', b"[]", b'{"pid":7,"command":"a\\u001b[31m"}']
)
def test_what_a_file_says_is_not_believed(tmp_path: Path, text: bytes) -> None:
    """A stale file locks nobody out; a held one with odd text still gives a clean error."""
    lock = acquire(KEY, directory=tmp_path)
    lock.path.write_bytes(text)
    with pytest.raises(BusyError) as caught:
        acquire(KEY, directory=tmp_path)
    assert "\x1b" not in caught.value.message
    lock.release()
    lock.path.write_bytes(text)
    acquire(KEY, directory=tmp_path).release()


def test_what_a_killed_holder_had(tmp_path: Path) -> None:
    """Whether it had the guest stopped; a holder that ends in order leaves nothing."""
    for held, left in ((True, Hold.STOPPED), (False, Hold.RUNNING)):
        lock = acquire("guest", directory=tmp_path)
        lock.note_hold(not held)
        lock.note_hold(held)
        os.close(lock._fd)  # as the kernel does
        after = acquire("guest", directory=tmp_path)
        assert after.left is left
        after.release()
        after.note_hold(True)  # too late
        again = acquire("guest", directory=tmp_path)
        assert again.left is Hold.NONE
        again.release()


def test_who_holds_it_is_known_beside_what_it_does(tmp_path: Path) -> None:
    with acquire("guest", directory=tmp_path, command="first") as lock:
        lock.note_hold(True)
        with pytest.raises(BusyError, match="first") as caught:
            acquire("guest", directory=tmp_path)
        assert caught.value.pid == os.getpid()
