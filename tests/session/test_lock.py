"""One probekit per guest, with real processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from probekit.errors import BusyError, JournalError
from probekit.session.lock import Hold, acquire, no_lock

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
    """Whether it had the guest stopped."""
    for held, left in ((True, Hold.STOPPED), (False, Hold.RUNNING)):
        lock = acquire("guest", directory=tmp_path)
        lock.note_hold(not held)
        lock.note_hold(held)
        os.close(lock._fd)  # as the kernel does
        after = acquire("guest", directory=tmp_path)
        assert after.left is left
        after.note_hold(True)
        after.note_hold(None)
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


def test_a_lost_connection_leaves_the_note(tmp_path: Path) -> None:
    lock = acquire("guest", directory=tmp_path)
    lock.note_hold(True)
    lock.release()
    after = acquire("guest", directory=tmp_path)
    assert after.left is Hold.STOPPED
    after.note_hold(None)
    after.release()
    assert acquire("guest", directory=tmp_path).left is Hold.NONE


def test_the_note_stays_until_there_is_another(tmp_path: Path) -> None:
    """One that is killed or fails before it gets to the guest leaves it to the next one."""
    lock = acquire("guest", directory=tmp_path, command="a long command " * 40)
    lock.note_hold(True)
    os.close(lock._fd)
    killed = acquire("guest", directory=tmp_path)
    os.close(killed._fd)
    failed = acquire("guest", directory=tmp_path)
    failed.release()
    unreached = acquire("guest", directory=tmp_path)
    unreached.note_hold(True)
    unreached.note_unchanged()
    unreached.release()
    last = acquire("guest", directory=tmp_path)
    assert (killed.left, failed.left, unreached.left, last.left) == (Hold.STOPPED,) * 4


def test_a_guest_that_nobody_stopped_and_that_was_not_reached(tmp_path: Path) -> None:
    with acquire("guest", directory=tmp_path) as lock:
        lock.note_hold(True)
        lock.note_unchanged()
    assert acquire("guest", directory=tmp_path).left is Hold.NONE


def test_the_longest_command_leaves_the_note_alone(tmp_path: Path) -> None:
    lock = acquire("guest", directory=tmp_path)
    lock.note_hold(False)
    os.close(lock._fd)
    os.close(acquire("g\u00fcest" * 1000, directory=tmp_path, command="\u00fc" * 5000)._fd)
    os.close(acquire("guest", directory=tmp_path, command="\u00fc" * 5000)._fd)
    assert acquire("guest", directory=tmp_path).left is Hold.RUNNING


def test_the_note_of_another_machine_at_the_same_address_is_not_heeded(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.touch()
    lock = acquire(f"unix:{path}", directory=tmp_path)
    lock.note_hold(True)
    lock.release()
    path.rename(tmp_path / "old")
    path.touch()
    assert acquire(f"unix:{path}", directory=tmp_path).left is Hold.NONE


def test_a_full_disk_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with acquire(KEY, directory=tmp_path) as lock:
        lock.note_hold(True)
        monkeypatch.setattr(os, "ftruncate", full)
        with pytest.raises(BusyError, match="by another process"):
            acquire(KEY, directory=tmp_path)
    acquire(KEY, directory=tmp_path).release()


def test_a_file_that_cannot_be_made_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"the lock file .*/file/locks/\w+.lock cannot be opened") as caught:
        acquire(KEY, directory=tmp_path / "file" / "locks")
    assert "XDG_STATE_HOME" in caught.value.hint


def test_no_lock_locks_nothing() -> None:
    with no_lock() as lock:
        lock.note_hold(True)
        lock.release()
