"""Build QEMU's command line for a guest.

The gdb stub, QMP (twice: one for the tracer, one for a test that watches it) and
the exec channels are unix sockets in the guest's directory. The machine has no
network. Its memory is a shared file, which a tracer may map. After a panic the
guest reboots, which QEMU turns into a pause: the dead guest can be inspected.

TCG runs each vCPU in a thread of its own (``multi``) or all in one (``single``).
With ``multi``, a guest kernel that rewrites its own hot code (kprobes, static
keys) while another vCPU runs it can be left with a translation of the old bytes,
and then oopses: on QEMU 7.2 within seconds, on 11.1 within minutes
(``vm/README.md`` has the figures). With ``single`` it does not. Writes through
the gdb stub are not affected, because every vCPU is stopped then.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from vm.errors import VmError

__all__ = ("EXEC_CHANNELS", "Machine", "Tcg", "command_line", "program")

Tcg: TypeAlias = Literal["multi", "single"]

EXEC_CHANNELS = 3

# loglevel=5 keeps warnings and worse on the console while booting; init raises it to 7. The console is a
# polled serial port, slow under TCG, so the several hundred informational lines stay in dmesg.
# tsc=reliable: on a busy host the kernel would at some time stop trusting the time stamp counter, and then
# rewrite its own text (the static key of sched_clock), which would look like a change by a tracer.
_APPEND = "console=ttyS0,115200 loglevel=5 panic=1 rdinit=/init 8250.nr_uarts=4 tsc=reliable"


@dataclass(frozen=True, slots=True)
class Machine:
    """The settings of one guest's machine."""

    name: str
    directory: Path
    """The directory of its sockets and logs."""
    kernel: Path
    initrd: Path
    ram: Path
    """The file that is its memory."""
    smp: int
    """The number of its CPUs."""
    memory: int
    """The size of its memory in MiB."""
    append: str
    """Additional kernel arguments."""
    tcg: Tcg = "multi"
    """Threads of the emulator: ``multi`` or ``single``."""

    @property
    def console(self) -> Path:
        """The console's log file."""
        return self.directory / "console.log"

    def socket(self, name: str) -> Path:
        """Return the path of the socket called ``name``."""
        return self.directory / f"{name}.sock"


def _unix(machine: Machine, name: str) -> tuple[str, ...]:
    return ("-chardev", f"socket,id={name},path={machine.socket(name)},server=on,wait=off")


def program() -> str:
    """Return QEMU's program: the one that ``PROBEKIT_QEMU`` names, else the machine's own.

    Raises :class:`VmError` when the variable names no program.
    """
    named = os.environ.get("PROBEKIT_QEMU")
    if not named:
        return "qemu-system-x86_64"
    found = shutil.which(named)
    if found is None:
        raise VmError(f"PROBEKIT_QEMU names no program: {named}")
    return found


def command_line(machine: Machine) -> tuple[str, ...]:
    """Return the whole command line. The first serial port is the console, the others are exec channels."""
    channels = [f"exec{n}" for n in range(1, EXEC_CHANNELS + 1)]
    return (
        *(program(), "-name", f"probekit-vm-{machine.name}", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35,memory-backend=ram", "-accel", f"tcg,thread={machine.tcg}", "-cpu", "max"),
        *("-smp", str(machine.smp), "-m", str(machine.memory)),
        *("-object", f"memory-backend-file,id=ram,share=on,mem-path={machine.ram},size={machine.memory}M"),
        *("-kernel", str(machine.kernel), "-initrd", str(machine.initrd)),
        *("-append", f"{_APPEND} {machine.append}".strip()),
        *("-chardev", f"file,id=console,path={machine.console}", "-serial", "chardev:console"),
        *(word for name in channels for word in (*_unix(machine, name), "-serial", f"chardev:{name}")),
        *(*_unix(machine, "gdb"), "-gdb", "chardev:gdb"),
        *(*_unix(machine, "qmp"), "-mon", "chardev=qmp,mode=control"),
        *(*_unix(machine, "qmp2"), "-mon", "chardev=qmp2,mode=control"),
        *("-action", "reboot=shutdown,shutdown=pause"),
    )
