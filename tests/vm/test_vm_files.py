"""What the launcher writes: the archive, the command line, records, directories."""

import io
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from vm import cpio, guest_records, host, paths, qemu
from vm.cli import main
from vm.errors import CommandFailedError, MissingPackagesError, NoSuchGuestError, VmError
from vm.guest_records import GuestRecord
from vm.host import Requirement


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return paths.runtime_dir()


def _record(name: str, *, pid: int, created: float) -> GuestRecord:
    address = "unix:/nowhere"
    return GuestRecord(
        name=name,
        kernel="6.1-cloud",
        release="6.1.0",
        pid=pid,
        created=created,
        gdb=address,
        qmp=address,
        qmp2=address,
        console="/nowhere",
        ram="/nowhere",
        memory=512,
        smp=2,
        append="",
        bpftrace=False,
    )


def _headers(data: bytes) -> list[tuple[str, int, bytes]]:
    """(name, mode, data) of each entry, read back with the field widths of newc."""
    stream = io.BytesIO(data)
    found = []
    while True:
        head = stream.read(110)
        assert head[:6] == b"070701"
        fields = [int(head[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        name = stream.read(fields[11]).rstrip(b"\0").decode()
        stream.seek(-stream.tell() % 4, os.SEEK_CUR)
        body = stream.read(fields[6])
        stream.seek(-stream.tell() % 4, os.SEEK_CUR)
        if name == "TRAILER!!!":
            return found
        found.append((name, fields[1], body))


def test_the_archive_holds_what_was_put_in() -> None:
    data = cpio.archive(
        (
            cpio.directory("bin"),
            cpio.regular("bin/x", b"12345", mode=0o755),
            cpio.symlink("bin/sh", "/bin/x"),
            cpio.char_device("console", 5, 1),
        )
    )
    assert len(data) % 512 == 0
    assert _headers(data) == [
        ("bin", 0o040755, b""),
        ("bin/x", 0o100755, b"12345"),
        ("bin/sh", 0o120777, b"/bin/x"),
        ("console", 0o020600, b""),
    ]


def test_equal_contents_make_equal_archives() -> None:
    entries = (cpio.regular("a", b"x"), cpio.regular("b", b"y"))
    assert cpio.archive(entries) == cpio.archive(entries)


def test_the_command_line_listens_on_unix_sockets_only(tmp_path: Path) -> None:
    machine = qemu.Machine(
        name="n",
        directory=tmp_path,
        kernel=Path("k"),
        initrd=Path("i"),
        ram=Path("r"),
        smp=3,
        memory=640,
        append="pti=on",
    )
    words = qemu.command_line(machine)
    chardevs = [words[at + 1] for at, word in enumerate(words) if word == "-chardev"]
    assert all(c.startswith(("socket,id=", "file,")) and "host=" not in c and "port=" not in c for c in chardevs)
    assert [c.split(",")[1] for c in chardevs if "path=" + str(tmp_path) in c and "socket" in c] == [
        f"id={name}" for name in ("exec1", "exec2", "exec3", "gdb", "qmp", "qmp2")
    ]
    append = words[words.index("-append") + 1]
    assert "nokaslr" not in append
    assert append.endswith(" pti=on")
    assert "share=on" in words[words.index("-object") + 1]
    assert words[words.index("-smp") + 1] == "3"


def test_another_qemu_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROBEKIT_QEMU", raising=False)
    assert qemu.program() == "qemu-system-x86_64"
    newer = tmp_path / "newer"
    monkeypatch.setenv("PROBEKIT_QEMU", str(newer))
    with pytest.raises(VmError, match=f"PROBEKIT_QEMU names no program: {newer}"):
        qemu.program()
    newer.write_text("#!/bin/sh\n")
    newer.chmod(0o755)
    assert qemu.program() == str(newer)


def test_a_record_survives_a_round_trip(runtime: Path) -> None:
    record = _record("a", pid=1, created=2.5)
    (runtime / "a").mkdir()
    guest_records.save(record)
    assert guest_records.load("a") == record
    assert guest_records.all_records() == [record]


def test_a_record_of_another_version_loads(runtime: Path) -> None:
    (runtime / "a").mkdir()
    guest_records.save(_record("a", pid=1, created=2.5))
    path = runtime / "a" / "vm.json"
    path.write_text(path.read_text().replace('"smp"', '"invented": 1, "smp"').replace('"tcg": "multi"', '"x": 1'))
    assert guest_records.load("a").tcg == "multi"


def test_a_damaged_record_is_said_to_be_damaged(runtime: Path) -> None:
    (runtime / "a").mkdir()
    (runtime / "a" / "vm.json").write_text("{}")
    with pytest.raises(VmError, match="damaged"):
        guest_records.load("a")


def test_an_unknown_guest(runtime: Path) -> None:
    with pytest.raises(NoSuchGuestError) as caught:
        guest_records.load("nobody")
    assert caught.value.name == "nobody"


def test_a_process_that_is_not_ours_is_never_ended() -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        created = psutil.Process(process.pid).create_time()
        guest_records.kill(process.pid, created - 100)
        assert process.poll() is None
        guest_records.kill(process.pid, created)
        process.wait(5)


def test_names_too_long_for_a_socket_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("d" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(VmError, match="too long"):
        paths.guest_dir("guest")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    paths.write_atomic(tmp_path / "f", b"data", mode=0o600)
    assert (tmp_path / "f").read_bytes() == b"data"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    table = (Requirement("here", "", lambda: True), Requirement("absent-one", "", lambda: False))
    monkeypatch.setattr(host, "REQUIREMENTS", table)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingPackagesError) as caught:
        host.ensure()
    assert caught.value.packages == ("absent-one",)
    assert main(["requirements"]) == 1
    assert capsys.readouterr().out == "absent-one\n"


def test_a_failed_host_command_carries_its_output() -> None:
    with pytest.raises(CommandFailedError) as caught:
        host.run(("sh", "-c", "echo oh >&2; exit 3"))
    assert (caught.value.status, caught.value.output) == (3, "oh\n")


def test_exec_takes_its_options_before_and_after_the_name(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["exec", "--timeout", "1", "x", "ls", "-l"], ["exec", "x", "--timeout", "1", "ls", "-l"]):
        assert main(arguments) == NoSuchGuestError.exit_code
        assert "no guest named 'x'" in capsys.readouterr().err
