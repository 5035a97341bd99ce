"""Provider ``mem`` as a user meets it: counts that the guest's own work decides."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from probekit.session.attach import attach
from tests.live.inprocess import trace
from tests.live.rawstub import RawStub
from tests.live.tool import Probekit
from tests.live.work import getppid_on_each_cpu, lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

VARIABLE = "vm_swappiness-4"  # an int behind /proc/sys/vm/swappiness
FILE = "/proc/sys/vm/swappiness"
K = 60


def _writes(cpu: int, first: int) -> str:
    """K writes of the values from ``first`` on, by one CPU."""
    loop = f"i=0; while [ $i -lt {K} ]; do echo $(({first}+i)) > {FILE}; i=$((i+1)); done"
    return f"taskset {1 << cpu} sh -c '{loop}'"


def test_every_write_from_both_vcpus(guest: Guest, homes: object) -> None:
    """Exactly K writes on each vCPU at the same time, each with its value, and each old value is the last new one."""
    script = f"""
        mem::{VARIABLE}:write {{ trace(arg2); trace(arg3); @[cpu, execname, arg1] = count(); @at[arg4] = count(); }}
        mem::{VARIABLE}:read {{ @read = count(); }}
    """
    done = trace(guest, script, lines(guest, f"{_writes(0, 1)} & {_writes(1, 101)} & wait"))
    assert done.trouble() == []
    assert done.table() == {(0, "sh", 4): K, (1, "sh", 4): K}
    values = done.traced()
    assert Counter(new for _, new in values) == Counter([*range(1, K + 1), *range(101, 101 + K)])
    assert [old for old, _ in values[1:]] == [new for _, new in values[:-1]]
    (where,) = done.table("at")
    with attach(guest.gdb) as attachment:
        found = attachment.kernel.symbols.lookup(int(where[0]) & ((1 << 64) - 1))
    assert found is not None and found[0].name.startswith(("do_proc_dointvec", "proc_dointvec"))


def test_reads(guest: Guest, homes: object) -> None:
    script = f"""
        mem::{VARIABLE}:read {{ @[execname, arg2 == arg3, arg3] = count(); }}
        mem::{VARIABLE}:write {{ @w = count(); }}
    """
    done = trace(guest, script, lines(guest, f"echo 77 > {FILE}; for i in 1 2 3 4 5; do cat {FILE}; done"))
    assert done.trouble() == []
    assert done.table() == {("cat", 1, 77): 5}
    assert done.table("w") == {(): 1}


def test_each_element_of_the_kernels_own_strings(guest: Guest, homes: object) -> None:
    """sethostname() copies the name and clears what is behind it, by whatever the kernel uses for that."""
    with attach(guest.gdb) as attachment:
        btf = attachment.kernel.btf
        assert btf is not None
        offset = btf.struct("uts_namespace").field("name.nodename").offset
        name = attachment.kernel.symbol("init_uts_ns") + offset
    before = guest.check("hostname").strip()
    script = f"mem::{name:#x}-65:write {{ trace(arg0); trace(arg1); trace(arg2); trace(arg3); }}"
    done = trace(guest, script, lines(guest, "hostname a-name-of-the-tests"))
    guest.check(f"hostname {before}")
    assert done.trouble() == []
    held = bytearray(before.encode().ljust(65, b"\0"))
    written = bytearray(65)
    for addr, size, old, new in done.traced():
        at = (int(addr) & ((1 << 64) - 1)) - name
        mask = (1 << 8 * min(int(size), 8)) - 1
        assert int(size) <= 8
        assert int.from_bytes(held[at : at + int(size)], "little") == int(old) & mask
        held[at : at + int(size)] = (int(new) & mask).to_bytes(int(size), "little")
        written[at : at + int(size)] = b"\1" * int(size)
    assert held == b"a-name-of-the-tests".ljust(65, b"\0")
    assert all(written), "a byte was written and not seen"


def test_runs_without_another_option(guest: Guest, probekit: Probekit) -> None:
    """The kernel's tick, with BEGIN, a timer and END, and a function's probes beside it."""
    done = probekit.run(
        "--json",
        *("-n", "BEGIN { n = 5; } mem::jiffies:write { n++; @j[arg3 > arg2] = count(); } tick-700ms { exit(n > 5); }"),
        *("-n", "fbt::sys_getppid:entry { n++; } END { trace(n); }"),
    )
    assert done.status == 1, done.stderr
    assert done.lost == []
    ticks = done.table("j")
    assert set(ticks) == {(1,)} and ticks[1,] > 2
    (end,) = done.fired("END")
    assert end["data"][0] >= ticks[1,] + 5


def test_beside_breakpoints(guest: Guest, homes: object) -> None:
    script = f"""
        mem::{VARIABLE}:write {{ @w = count(); }}
        fbt::sys_getppid:entry /execname == "syscalls"/ {{ @p[cpu] = count(); }}
    """
    work = getppid_on_each_cpu(guest, 50)
    done = trace(guest, script, lambda: (guest.check(f"{_writes(0, 1)} & wait"), work()))
    assert done.trouble() == []
    assert done.table("w") == {(): K}
    assert done.table("p") == {(0,): 50, (1,): 50}


def test_ctrl_c_leaves_no_watchpoint(guest: Guest, probekit: Probekit) -> None:
    running = probekit.live(f"mem::{VARIABLE}:write {{ @ = count(); }}")
    guest.check(f"echo 44 > {FILE}")
    done = running.finish(signal.SIGINT)
    assert done.status == 0 and done.table() == {(): 1}
    assert guest.check(f"echo 60 > {FILE}; cat {FILE}", timeout=10).strip() == "60"


def test_killed(guest: Guest, probekit: Probekit) -> None:
    """A watchpoint outlives its owner in QEMU and stops the guest at the next access; recover clears it."""
    running = probekit.live(f"mem::{VARIABLE}:write {{ @ = count(); }} mem::jiffies:write {{ @j = count(); }}")
    running.process.kill()
    running.finish()
    time.sleep(0.1)
    recovered = probekit.recover()
    assert recovered.status == 0, recovered.stderr
    assert guest.check(f"echo 61 > {FILE}; cat {FILE}", timeout=10).strip() == "61"
    # And nobody is told of what was set by the dead one.
    with RawStub(guest.gdb) as stub:
        assert stub.ask("?").startswith("T")
    assert guest.check(f"echo 60 > {FILE}; cat {FILE}", timeout=10).strip() == "60"


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ("mem::no_such_variable:write", "does not match any probes"),
        ("mem::jiffies:execute", "does not match any probes"),
        ("mem::jif*:write", "does not match any probes"),
        ("mem::jiffies-0:write", "a range of 0 bytes"),
        ("mem::jiffies-100000:write", "a range of 100000 bytes"),
        ("mem::irq_stat:write", "is not at one address"),
        ("mem::0xffffc00000000000-8:write", "no memory there"),
        ("mem::0xfffffffffffffffc-8:write", "does not lie in one half"),
    ],
)
def test_what_cannot_be_watched(guest: Guest, probekit: Probekit, probe: str, said: str) -> None:
    done = probekit.run("-n", probe)
    assert done.status == 1
    assert said in done.paragraph()
    assert guest.exec("true", timeout=10).status == 0


def test_it_is_listed_when_named(probekit: Probekit) -> None:
    listed = probekit.run("-l", "-n", "mem::jiffies:")
    assert listed.status == 0, listed.stderr
    assert [line.split()[1:] for line in listed.stdout.splitlines()[1:]] == [
        ["mem", "vmlinux", "jiffies", "read"],
        ["mem", "vmlinux", "jiffies", "write"],
    ]
