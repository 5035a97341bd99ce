"""Wrong symbols, probes that do not exist, a state directory that fails: said, and the guest left as it was."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest_fixtures import K61, only
from tests.live.refusal import PROBE, refused
from tests.live.tool import Probekit
from vm.guest import Guest
from vm.host import busybox

pytestmark = [pytest.mark.guest, only(K61)]
Make = Callable[[str], Probekit]


def _works(probekit: Probekit, guest: Guest) -> None:
    """The guest runs and can be traced: whatever was refused before has left nothing."""
    assert guest.exec("true", timeout=20).status == 0
    done = probekit.run("--json", "-n", "fbt::sys_getppid:entry { @ = count(); }", "-n", "tick-100ms { exit(3); }")
    assert done.status == 3, done.stderr


# -- symbols ----------------------------------------------------------------------------------------------------------


def _kallsyms(change: Callable[[int], int]) -> Callable[[Guest], str]:
    def text(guest: Guest) -> str:
        lines = guest.check("grep -E ' [tT] ' /proc/kallsyms | head -2000").splitlines()
        rows = (line.split() for line in lines if line)
        # Where the kernel begins is right, or a shifted map would only be one of a kernel without KASLR.
        keep = ("_text", "_stext", "startup_64")
        moved = ((int(a, 16) if name in keep else change(int(a, 16)), letter, name) for a, letter, name, *_ in rows)
        return "".join(f"{addr:016x} {letter} {name}\n" for addr, letter, name in moved)

    return text


def _zeros(_: Guest) -> str:
    return "".join(f"{0:016x} T {name}\n" for name in ("_text", "_stext", "vfs_read", "_etext"))


SYMBOLS: dict[str, Callable[[Guest], str | bytes]] = {
    "an ELF of something else": lambda _: (busybox() or Path("/bin/true")).read_bytes(),
    "kallsyms of an unprivileged user": _zeros,
    "another kernel's map": _kallsyms(lambda addr: addr + 0x1230),
    "text": lambda _: "this is no symbol table\n" * 100,
    "nothing": lambda _: "",
    "noise": lambda _: bytes(range(256)) * 64,
    "a broken ELF": lambda _: b"\x7fELF\x02\x01\x01" + bytes(200),
}


@pytest.mark.parametrize("name", SYMBOLS)
def test_symbols_that_do_not_fit(guest: Guest, probekit: Probekit, tmp_path: Path, name: str) -> None:
    data = SYMBOLS[name](guest)
    file = tmp_path / "symbols"
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    refused(probekit.run("--symbols", str(file), *PROBE), str(file))


def test_no_symbol_file_at_all(probekit: Probekit, guest: Guest) -> None:
    refused(probekit.run("--symbols", "/no/such/file", *PROBE), "/no/such/file")
    _works(probekit, guest)


# -- probes -----------------------------------------------------------------------------------------------------------


def test_a_glob_that_matches_nothing(guest: Guest, probekit: Probekit) -> None:
    refused(probekit.run("-n", "fbt::no_such_*:entry { @ = count(); }"), "fbt::no_such_*:entry")
    allowed = probekit.run("-Z", "-n", "fbt::no_such_*:entry { @ = count(); }", "-n", "tick-100ms { exit(5); }")
    assert allowed.status == 5 and "matched 0 probes" in allowed.stderr
    listed = probekit.run("-l", "-n", "fbt::no_such_*:entry")
    assert listed.status == 1 and "fbt::no_such_*:entry" in listed.paragraph()


def test_a_script_error_never_reaches_the_guest(guest: Guest, probekit: Probekit) -> None:
    refused(probekit.run("-n", "fbt::vfs_read:entry { trace(nosuch); }"), "[D_IDENT_UNDEF]")


@pytest.mark.parametrize("buffer", ["aggsize=200m", "bufsize=200m"])
def test_more_memory_than_a_guest_should_be_asked_for(guest: Guest, probekit: Probekit, buffer: str) -> None:
    script = ("-n", "fbt::vfs_read:entry { @[execname, pid] = count(); trace(pid); }")
    refused(probekit.run("-x", buffer, *script), "MiB of guest memory", "lower -x aggsize")
    refused(probekit.run("-x", buffer.replace("200m", "1g"), *script), "256m at most")
    _works(probekit, guest)


# -- this machine -----------------------------------------------------------------------------------------------------


def test_a_second_probekit_names_the_first(guest: Guest, probekit: Probekit) -> None:
    first = probekit.live("fbt::sys_getppid:entry { @ = count(); }")
    for args in (PROBE, ("-l", "-n", "fbt::vfs_read:"), ("recover",)):
        refused(probekit.run(*args), str(first.process.pid))
    # However the target is spelled.
    path = guest.gdb.removeprefix("unix:")
    again = Probekit(f"unix:{Path(path).parent}/./{Path(path).name}", probekit.env)
    refused(again.run(*PROBE), str(first.process.pid))
    done = first.finish(signal.SIGINT)
    assert done.status == 0 and done.lost == []
    _works(probekit, guest)


def test_a_state_directory_that_cannot_be_written(guest: Guest, probekit: Probekit, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for place in (f"{file}/state", "/proc/nothing"):
        refused(probekit.start(*PROBE, env={"XDG_STATE_HOME": place}).finish(), place)
    _works(probekit, guest)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
def test_a_full_disk(guest: Guest, probekit: Probekit, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        # The journal of every function does not fit; that of one does.
        state = {"XDG_STATE_HOME": str(small)}
        refused(probekit.start("-n", "fbt:::entry { @ = count(); }", env=state).finish(), "journal", "space")
        fits = probekit.start("-n", "fbt::sys_getppid:entry", "-n", "tick-100ms { exit(2); }", env=state).finish()
        assert fits.status == 2, fits.stderr
    finally:
        subprocess.run(["umount", small], check=True)
    assert probekit.recover().status == 0
