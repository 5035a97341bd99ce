"""Start, use and stop a guest.

::

    with Guest.start(kernel="6.1-cloud") as guest:
        guest.exec("uname -r").output          # '6.1.0-56-cloud-amd64\\n'
        probekit.attach(guest.gdb)             # unix:/tmp/probekit-vm-0/auto-…/gdb.sock

A guest outlives the process that started it unless the ``with`` block (or
:meth:`Guest.stop`) ends it.

:class:`Guest` is a virtual machine that tests start and stop. :class:`probekit.Guest`
(probekit/session/api.py) is a guest that probekit is attached to; it may run anywhere.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from vm import guest_records, host, initramfs, kernels, module_build, qemu
from vm.channel import Completed, run_script
from vm.console_problems import find_problems, has_panicked
from vm.errors import GuestExistsError, GuestNotReadyError, NoSuchGuestError, VmError
from vm.guest_records import GuestRecord
from vm.kernels import FetchedKernel
from vm.paths import guest_dir, ram_path

__all__ = ("BOOT_SECONDS", "Background", "Guest", "parse_ready")

BOOT_SECONDS = 120.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_READY = re.compile(r"PROBEKIT-READY (\w+=\S+(?: \w+=\S+)*)\r?\n")
_BPFTRACE_MEMORY = 1536
_BASE64_LINE = 1024
# The QEMU processes that this process started: only their parent can reap them.
_children: dict[int, subprocess.Popen[bytes]] = {}


def parse_ready(console: str) -> dict[str, str] | None:
    """Return the facts in init's READY line, or None if it is not there yet."""
    found = _READY.search(console)
    return dict(word.split("=", 1) for word in found[1].split()) if found is not None else None


def _console_tail(directory: Path) -> str:
    parts = []
    for name in ("console.log", "qemu.log"):
        path = directory / name
        if path.exists():
            parts.append(path.read_text(errors="replace")[-4000:])
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Background:
    """A command that keeps running in the guest."""

    guest: Guest
    pid: int
    """The process ID in the guest."""
    output_path: str
    """The file in the guest with its output."""

    def running(self) -> bool:
        """Return whether the command still runs."""
        return self.guest.exec(f"test ! -e {self.output_path}.status").status == 0

    def output(self) -> str:
        """Return the output of the command so far."""
        return self.guest.exec(f"cat {self.output_path}").output

    def wait(self, timeout: float = 60) -> Completed:
        """Wait up to ``timeout`` seconds for the command's end, and return its status and output."""
        path = self.output_path
        done = self.guest.exec(f"while ! test -e {path}.status; do sleep 0.05; done; cat {path}.status", timeout)
        return Completed(int(done.output), self.output())

    def stop(self, signal: str = "TERM", timeout: float = 60) -> Completed:
        """Send a signal to the command and its children, and wait for its end."""
        self.guest.exec(f"kill -{signal} -- -{self.pid}")
        return self.wait(timeout)


class Guest:
    """Controls a virtual machine: its QEMU process, its files, and commands in it. Not :class:`probekit.Guest`."""

    def __init__(self, record: GuestRecord) -> None:
        """Control the guest of ``record``, which is the contents of its ``vm.json``."""
        self.record = record
        self.name = record.name
        self.kernel = record.kernel
        self.release = record.release
        self.pid = record.pid
        self.gdb = record.gdb
        self.qmp = record.qmp
        self.qmp2 = record.qmp2
        self.ram = Path(record.ram)
        self.console = Path(record.console)
        self.memory = record.memory
        self.smp = record.smp

    @classmethod
    def start(
        cls,
        *,
        kernel: str = "6.1-cloud",
        name: str | None = None,
        smp: int = 2,
        memory: int = 512,
        bpftrace: bool = False,
        append: str = "",
        tcg: qemu.Tcg | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Guest:
        """Boot a guest and wait until its exec agent answers.

        ``smp``: CPUs; ``memory``: MiB. ``tcg``: ``multi`` or ``single`` (see :mod:`vm.qemu`).
        The default is ``multi``, but ``single`` with bpftrace, because with ``multi`` the
        probes of bpftrace soon crash the guest. Raises :class:`VmError`.
        """
        name = name or f"auto-{secrets.token_hex(4)}"
        if not _NAME.fullmatch(name):
            raise VmError(f"{name!r} is not a guest name: letters, digits and ._- only, at most 32")
        host.ensure()
        fetched = kernels.fetch(kernel, progress=progress)
        initrd = initramfs.image(fetched, with_bpftrace=bpftrace, progress=progress)
        machine = qemu.Machine(
            name=name,
            directory=guest_dir(name),
            kernel=fetched.image,
            initrd=initrd,
            ram=ram_path(name),
            smp=smp,
            memory=max(memory, _BPFTRACE_MEMORY) if bpftrace else memory,
            append=append,
            tcg=tcg or ("single" if bpftrace else "multi"),
        )
        return cls(_boot(machine, fetched, bpftrace=bpftrace, progress=progress))

    @classmethod
    def attach(cls, name: str) -> Guest:
        """Return a guest that was started before, perhaps by another process. Raises :class:`NoSuchGuestError`."""
        record = guest_records.load(name)
        if not guest_records.is_running(record):
            raise NoSuchGuestError(name)
        return cls(record)

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def exec(self, cmd: str, timeout: float = 60) -> Completed:
        """Run a shell command in the guest, and return its status with its standard output and error together."""
        return run_script(guest_dir(self.name), cmd, timeout=timeout)

    def check(self, cmd: str, timeout: float = 60) -> str:
        """Run a shell command and return its output. Raises :class:`VmError` for a status other than 0."""
        done = self.exec(cmd, timeout)
        if done.status != 0:
            raise VmError(f"exit status {done.status} in guest {self.name!r}: {cmd}\n{done.output.strip()}")
        return done.output

    def put(self, path: str, data: bytes, timeout: float = 120) -> None:
        """Write a file in the guest. Raises :class:`VmError` when it arrives damaged."""
        text = base64.b64encode(gzip.compress(data)).decode()
        lines = "\n".join(text[at : at + _BASE64_LINE] for at in range(0, len(text), _BASE64_LINE))
        where = shlex.quote(path)
        self.check(f"base64 -d <<'END' | gunzip >{where}\n{lines}\nEND\n", timeout)
        arrived = self.check(f"sha256sum {where}").split()[0]
        if arrived != hashlib.sha256(data).hexdigest():
            raise VmError(f"{path} arrived damaged in guest {self.name!r}")

    def insmod(self, name: str, progress: Callable[[str], None] = lambda _: None) -> None:
        """Build a module of ``vm/modules`` for this kernel and load it."""
        path = f"/tmp/{name}.ko"
        self.put(path, module_build.build(name, kernels.fetch(self.kernel), progress=progress))
        self.check(f"insmod {path} && rm {path}")

    def spawn(self, cmd: str) -> Background:
        """Start a shell command in the guest and leave it running."""
        path = f"/tmp/bg.{secrets.token_hex(4)}"
        # The command leads a session of its own, so its pid is also that of a process group which can be
        # signalled. The keeper around it is in another one, and lives to write the status.
        command = shlex.quote(f"echo $$ >{path}.pid\n{cmd}")
        keeper = f"setsid sh -c {command} >{path} 2>&1; echo $? >{path}.s; mv {path}.s {path}.status"
        wait = f"while ! test -s {path}.pid; do sleep 0.01; done; cat {path}.pid"
        script = f": >{path}; setsid sh -c {shlex.quote(keeper)} >/dev/null 2>&1 </dev/null & {wait}"
        return Background(self, int(self.check(script)), path)

    def running(self) -> bool:
        """Return whether its QEMU process runs. The guest may have panicked."""
        return guest_records.is_running(self.record)

    def panicked(self) -> bool:
        """Return whether its kernel has panicked."""
        return has_panicked(self.console_text())

    def console_text(self) -> str:
        """Return everything that its console has shown."""
        return self.console.read_text(errors="replace")

    def console_problems(self) -> list[str]:
        """Return the console's lines that report a damaged kernel."""
        return find_problems(self.console_text())

    def stop(self) -> None:
        """End its QEMU and remove all its files on the host. Safe to call twice."""
        guest_records.kill(self.record.pid, self.record.created)
        child = _children.pop(self.record.pid, None)
        if child is not None:
            child.wait()
        self.ram.unlink(missing_ok=True)
        guest_records.forget(self.name)
        guest_records.remove_runtime_dir_if_empty()


def _claim(machine: qemu.Machine) -> None:
    """Take the guest's name by making its directory. Raises :class:`GuestExistsError`."""
    try:
        machine.directory.mkdir(mode=0o700)
        return
    except FileExistsError:
        pass
    try:
        if guest_records.is_running(guest_records.load(machine.name)):
            raise GuestExistsError(machine.name)
    except NoSuchGuestError:
        # No record yet: another process may be starting it right now, or has died while doing so.
        if time.time() - machine.directory.stat().st_mtime < BOOT_SECONDS:
            raise GuestExistsError(machine.name) from None
    guest_records.forget(machine.name)
    machine.directory.mkdir(mode=0o700)


def _boot(
    machine: qemu.Machine, kernel: FetchedKernel, *, bpftrace: bool, progress: Callable[[str], None]
) -> GuestRecord:
    _claim(machine)
    process: subprocess.Popen[bytes] | None = None
    try:
        # No other user may have made, or may read, the file that will be the guest's memory.
        machine.ram.unlink(missing_ok=True)
        machine.ram.touch(mode=0o600, exist_ok=False)
        with (machine.directory / "qemu.log").open("wb") as log:
            # A session of its own keeps the terminal's Ctrl-C and hang-up from the guest.
            process = subprocess.Popen(
                qemu.command_line(machine), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        record = GuestRecord(
            name=machine.name,
            kernel=kernel.name,
            release=kernel.release,
            pid=process.pid,
            created=psutil.Process(process.pid).create_time(),
            **{name: f"unix:{machine.socket(name)}" for name in ("gdb", "qmp", "qmp2")},
            console=str(machine.console),
            ram=str(machine.ram),
            memory=machine.memory,
            smp=machine.smp,
            append=machine.append,
            bpftrace=bpftrace,
            tcg=machine.tcg,
        )
        # The record is saved before the guest is up: if we are killed now, `stop` can still end it.
        guest_records.save(record)
        _wait_ready(machine, process, progress)
    except BaseException:
        if process is not None:
            process.kill()
            process.wait()
        guest_records.forget(machine.name)
        guest_records.remove_runtime_dir_if_empty()
        raise
    _children[process.pid] = process
    return record


def _wait_ready(machine: qemu.Machine, process: subprocess.Popen[bytes], progress: Callable[[str], None]) -> None:
    started = time.monotonic()
    reported = started
    while True:
        now = time.monotonic()
        text = machine.console.read_text(errors="replace") if machine.console.exists() else ""
        facts = parse_ready(text)
        reason = ""
        if facts is not None and int(facts["cpus"]) == machine.smp:
            progress(f"{machine.name}: ready after {now - started:.1f} s")
            return
        if facts is not None:
            reason = f"has {facts['cpus']} of {machine.smp} CPUs up"
        elif process.poll() is not None:
            reason = f"did not start: QEMU ended with status {process.returncode}"
        elif has_panicked(text):
            reason = "panicked while booting"
        elif now - started > BOOT_SECONDS:
            reason = f"is not up after {BOOT_SECONDS:g} s"
        if reason:
            raise GuestNotReadyError(machine.name, reason, console=_console_tail(machine.directory))
        if now - reported > 2:
            reported = now
            progress(f"{machine.name}: booting, {now - started:.0f} s")
        time.sleep(0.02)
