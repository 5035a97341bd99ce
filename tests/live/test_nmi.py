"""Probes on the path of a non-maskable interrupt: nothing lost, nothing nested wrongly."""

from __future__ import annotations

import json
import mmap
import socket
import struct
import time
from collections.abc import Callable

import pytest

from probekit.consumer import events as model
from probekit.kernel.c_types import CStruct, strip
from probekit.session.attach import attach
from tests.guest_fixtures import KERNELS
from tests.live.inprocess import trace
from vm.guest import Guest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

# An NMI of no known cause goes through unknown_nmi_error() once, after every registered handler was asked.
SCRIPT = """
    fbt::unknown_nmi_error:entry { @entries = count(); }
    fbt::unknown_nmi_error:return { @returns[cpu] = count(); }
    fbt::nmi_handle*:entry,fbt::*nmi_handler:entry { @asked = count(); }
    fbt::nmi_handle*:return,fbt::*nmi_handler:return { @answered = count(); }
    fbt::vfs_*: { @load[probefunc, execname] = count(); }
    fbt::sys_*:entry { @load[probefunc, execname] = count(); }
    fbt::*spin_lock*: { @load[probename, execname] = count(); }
"""


class _Taken:
    """The guest's own count of the NMIs that CPU 0 took, out of its memory file: no guest code runs for it."""

    def __init__(self, guest: Guest) -> None:
        with attach(guest.gdb) as attachment, attachment.clock.paused():
            kernel = attachment.kernel
            assert kernel.btf is not None
            counters = strip(kernel.btf.typedef("irq_cpustat_t"))
            assert isinstance(counters, CStruct)
            field = counters.field("__nmi_count")
            addr = (kernel.percpu_offsets[0] + kernel.symbol("irq_stat") + field.offset) & ((1 << 64) - 1)
            physical = kernel.address_space.translate(addr)
        assert physical is not None
        self._at = physical  # the whole memory lies below 3 GiB: physical addresses are places in the file
        self._file = guest.ram.open("rb")
        self._map = mmap.mmap(self._file.fileno(), 0, prot=mmap.PROT_READ)

    def count(self) -> int:
        return int(struct.unpack_from("<I", self._map, self._at)[0])

    def close(self) -> None:
        self._map.close()
        self._file.close()


class _Monitor:
    """QMP by hand: ten thousand commands through the library take half a minute longer."""

    def __init__(self, guest: Guest) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(guest.qmp2.removeprefix("unix:"))
        self._answers = self._socket.makefile("rb")
        assert "QMP" in json.loads(self._answers.readline())
        self.ask("qmp_capabilities")

    def __enter__(self) -> _Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def ask(self, command: str) -> None:
        """Run a command and wait for its answer; events are passed over."""
        self._socket.sendall(json.dumps({"execute": command}).encode())
        while "event" in (answer := json.loads(self._answers.readline())):
            pass
        assert answer == {"return": {}}, answer


def _inject(guest: Guest, taken: _Taken, count: int) -> Callable[[], int]:
    """One at a time, the next only when the guest has taken the last: two that are pending merge into one."""

    def work() -> int:
        running = guest.spawn("mixed 900 2")
        before = taken.count()
        with _Monitor(guest) as monitor:
            for number in range(1, count + 1):
                monitor.ask("inject-nmi")
                deadline = time.monotonic() + 20
                while taken.count() != before + number:
                    assert time.monotonic() < deadline, f"NMI {number} was not taken"
                    time.sleep(0.0002)  # the processor is the guest's meanwhile
        assert running.running(), "the load ended"
        running.stop("KILL")
        return taken.count() - before

    return work


def _proc_interrupts(guest: Guest) -> int:
    line = next(line for line in guest.check("cat /proc/interrupts").splitlines() if line.split()[:1] == ["NMI:"])
    return sum(int(word) for word in line.split() if word.isdecimal())


def test_ten_thousand_under_load(guest: Guest, homes: object, request: pytest.FixtureRequest) -> None:
    count = request.config.getoption("--nmis") // len(KERNELS)  # the matrix shares them
    taken = _Taken(guest)
    before = _proc_interrupts(guest)
    try:
        done = trace(guest, SCRIPT, _inject(guest, taken, count))
    finally:
        taken.close()
    assert done.work == count
    assert _proc_interrupts(guest) - before == count
    # What interrupted a clause finds the guard closed; that is counted, and nothing but an NMI can do it.
    skipped = sum(e.count for e in done.events if isinstance(e, model.Drop) and e.kind == "recursion")
    assert [e for e in done.trouble() if not (isinstance(e, model.Drop) and e.kind == "recursion")] == []
    assert done.table("entries") == {(): count}
    assert sum(done.table("returns").values()) + skipped == count
    assert done.table("asked")[()] == done.table("answered")[()] >= count
    assert sum(done.table("load").values()) > count
    assert guest.exec("true", timeout=30).status == 0
