"""QEMU command lines, read as text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from probekit.errors import ProbekitError
from probekit.target.discovery import only_guest, parse_argv, parse_size


def test_a_full_command_line_is_read() -> None:
    found = parse_argv(
        "qemu-system-x86_64 -machine q35,memory-backend=ram0 -nodefaults -m 512 -snapshot"
        " -object memory-backend-file,id=ram0,size=512M,mem-path=/dev/shm/r,share=on"
        " -chardev socket,path=/run/g,server=on,wait=off,id=gdb0 -gdb chardev:gdb0"
        " -qmp unix:/run/q,server=on,wait=off"
        " -chardev socket,id=mon1,path=/run/q2,server,nowait -mon chardev=mon1,mode=control".split(),
        7,
    )
    assert (found.pid, found.gdb, found.qmp) == (7, "unix:/run/g", ("/run/q", "/run/q2"))
    assert (found.memory_backend, found.memory_path, found.memory_size) == ("ram0", "/dev/shm/r", 512 << 20)
    assert found.memory_shared


@pytest.mark.parametrize(
    ("words", "gdb"),
    [
        ("-s", "tcp:1234"),
        ("-S -s -nographic", "tcp:1234"),
        ("-gdb tcp::4321", "tcp:4321"),
        ("-gdb tcp:127.0.0.1:4321,server=on", "tcp:4321"),
        ("--gdb unix:/a,,b,server=on", "unix:/a,b"),
        ("-chardev socket,id=x,host=localhost,port=77,server=on -gdb chardev:x", "tcp:77"),
        ("-chardev backend=socket,id=x,path=/p -gdb chardev:x", "unix:/p"),
        ("-gdb chardev:missing", None),
        ("-gdb none", None),
        ("", None),
        ("-gdb", None),
    ],
)
def test_the_gdb_stub_is_found_in_a_command_line(words: str, gdb: str | None) -> None:
    assert parse_argv(["qemu", *words.split()]).gdb == gdb


@pytest.mark.parametrize(
    ("words", "qmp"),
    [
        ("-qmp unix:/q", ("/q",)),
        ("-qmp tcp:localhost:4444", ()),
        ("-mon chardev=m,mode=readline -chardev socket,id=m,path=/q", ()),
        ("-mon m,mode=control -chardev socket,id=m,path=/q", ("/q",)),
        ("-qmp unix:/q -qmp unix:/q", ("/q",)),
    ],
)
def test_the_qmp_sockets_are_found_in_a_command_line(words: str, qmp: tuple[str, ...]) -> None:
    assert parse_argv(["qemu", *words.split()]).qmp == qmp


def test_each_form_of_shared_memory_is_found() -> None:
    json = parse_argv(
        [
            "qemu",
            "-object",
            '{"qom-type":"memory-backend-file","id":"pc.ram","mem-path":"/m","size":1073741824,"share":true}',
        ]
    )
    assert (json.memory_path, json.memory_size, json.memory_shared) == ("/m", 1 << 30, True)
    private = parse_argv(["qemu", "-m", "2G", "-object", "memory-backend-file,id=a,mem-path=/m,size=2G"])
    assert (private.memory_path, private.memory_shared) == ("/m", False)
    plain = parse_argv(["qemu", "-m", "size=256,slots=2"])
    assert (plain.memory_path, plain.memory_size) == (None, 256 << 20)
    backends = [f"-object memory-backend-file,id={x},mem-path=/{x},size=1G,share=on" for x in "ab"]
    two = parse_argv(["qemu", *" ".join(backends).split()])
    assert two.memory_path is None
    hidden = parse_argv(["qemu", "-object", "memory-backend-memfd,id=a,size=1G,share=on"])
    assert hidden.memory_path is None
    assert parse_argv(["qemu", "-object", "{broken"]).memory_path is None


def test_a_size_has_a_unit_or_is_none() -> None:
    assert [parse_size(s) for s in ("1", "4K", "2m", "1GB", "x", "")] == [1, 4096, 2 << 20, 1 << 30, None, None]
    assert parse_size("128", bytes_by_default=False) == 128 << 20


@dataclass(frozen=True)
class _Process:
    """A process that runs ``words``; one of somebody else's when there are none."""

    pid: int
    words: str
    foreign: bool = False
    ports: tuple[int, ...] = ()

    def cmdline(self) -> list[str]:
        if not self.words:
            raise psutil.AccessDenied(self.pid)
        return self.words.split()

    def cwd(self) -> str:
        if self.foreign:
            raise psutil.AccessDenied(self.pid)
        return "/run"

    def uids(self) -> SimpleNamespace:
        return SimpleNamespace(real=os.getuid() + self.foreign)

    def username(self) -> str:
        return "somebody"

    def net_connections(self, kind: str) -> list[SimpleNamespace]:
        if self.foreign:
            raise psutil.AccessDenied(self.pid)
        return [SimpleNamespace(status="LISTEN", laddr=SimpleNamespace(port=port)) for port in self.ports]


def _processes(monkeypatch: pytest.MonkeyPatch, *commands: str) -> None:
    found = [_Process(n, words) for n, words in enumerate(commands, 1)]
    monkeypatch.setattr("psutil.process_iter", lambda: iter(found))


@pytest.mark.parametrize(
    ("words", "guest"),
    [
        ("/usr/bin/qemu-system-x86_64 -s -name vm1", ("localhost:1234", "vm1 (pid 3)")),
        ("qemu-kvm -gdb unix:g,server=on -name guest=vm2,debug-threads=on", ("unix:/run/g", "vm2 (pid 3)")),
        ("kvm -gdb tcp::7", ("localhost:7", "pid 3")),
    ],
)
def test_the_only_guest_is_chosen(monkeypatch: pytest.MonkeyPatch, words: str, guest: tuple[str, str]) -> None:
    _processes(monkeypatch, "", "qemu-img convert -s x", words, "qemu-system-x86_64 -name closed", "vi qemu-system")
    assert only_guest() == guest


def test_no_guest_or_several_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _processes(monkeypatch, "vi")
    with pytest.raises(ProbekitError, match="no QEMU runs on this host"):
        only_guest()
    _processes(monkeypatch, "qemu-system-x86_64 -name a\x1b[2J")
    with pytest.raises(ProbekitError, match=r"a\\x1b\[2J \(pid 1\)") as caught:
        only_guest()
    assert "gdbserver" in caught.value.hint
    _processes(monkeypatch, "kvm -gdb tcp::2", "kvm -gdb tcp::1 -name b")
    with pytest.raises(ProbekitError, match=r"(?s)2 guests.*-r localhost:1 +b \(pid 2\)\n +-r localhost:2 +pid 1"):
        only_guest()


def _machine(monkeypatch: pytest.MonkeyPatch, *found: _Process) -> None:
    monkeypatch.setattr("psutil.process_iter", lambda: iter(found))


def test_a_stub_that_the_monitor_opened_is_asked_for_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def ask(qmp: tuple[str, ...]) -> str | None:
        asked.append(qmp)
        return "tcp:4321" if qmp else None

    monkeypatch.setattr("probekit.target.discovery.ask_for_stub", ask)
    _machine(monkeypatch, _Process(1, "kvm -qmp unix:q,server=on -vnc :1 -name a", ports=(4321, 5901)))
    assert only_guest() == ("localhost:4321", "a (pid 1)") and asked == [("/run/q",)]
    _machine(monkeypatch, _Process(1, "kvm -qmp unix:q,server=on -vnc :1", ports=(5901,)))
    with pytest.raises(ProbekitError, match="none with a gdb stub"):
        only_guest()
    assert len(asked) == 1  # it listens on nothing else, so there is nothing to ask
    _machine(monkeypatch, _Process(1, "kvm -name a", ports=(4321, 4322)))
    with pytest.raises(ProbekitError, match=r"none with a gdb stub.*a \(pid 1\)") as caught:
        only_guest()
    assert "-r localhost:4321 or -r localhost:4322" in caught.value.hint


def test_who_may_not_look_is_told_who_can(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, _Process(1, "kvm -name a", foreign=True))
    with pytest.raises(ProbekitError, match=r"a \(pid 1, user somebody\)") as caught:
        only_guest()
    assert "only root and somebody can see" in caught.value.hint
    _machine(monkeypatch, _Process(1, "kvm -s", foreign=True))
    assert only_guest() == ("localhost:1234", "pid 1, user somebody")
    _machine(monkeypatch)
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"")  # hidepid: what others run cannot be read
    with pytest.raises(ProbekitError, match="you may not see the processes of other users") as caught:
        only_guest()
    assert "as root" in caught.value.hint
