"""Every firing is counted, once, with the right keys and values."""

from __future__ import annotations

import pytest

from probekit.consumer.events import Average, Quantize
from tests.live.inprocess import trace
from tests.live.work import demo, getppid_on_each_cpu, lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

CALLS = 1_000_000


def test_two_million_calls_on_two_busy_cpus(guest: Guest, homes: object) -> None:
    script = """
        fbt::sys_getppid:entry { @entries = count(); }
        fbt::sys_getppid:return { @returns = count(); }
        fbt::sys_getppid:entry { @each[cpu, execname] = count(); }
    """
    done = trace(guest, script, getppid_on_each_cpu(guest, CALLS))
    assert done.trouble() == []
    each = done.table("each")
    assert {key: value for key, value in each.items() if key[1] == "syscalls"} == {
        (0, "syscalls"): CALLS,
        (1, "syscalls"): CALLS,
    }
    # The single increment at the site and the keyed clause in the thunk saw the same, shells included.
    assert done.table("entries") == {(): sum(each.values())} == done.table("returns")


def test_the_demo_counts_itself(guest: Guest, homes: object) -> None:
    script = """
        fbt::sys_*:entry /execname == "demo"/ { @calls[probefunc] = count(); @pids[pid, tid] = count(); }
        fbt::sys_*:return /execname == "demo"/ { @back[probefunc] = count(); }
    """
    done = trace(guest, script, demo(guest, 2))
    own = done.work["calls"]
    assert done.trouble() == []
    for name in ("calls", "back"):
        seen = {key[0].removeprefix("__x64_sys_"): value for key, value in done.table(name).items()}
        assert {key: seen.get(key) for key in own} == own, name
    pids = done.table("pids")
    assert {key[0] for key in pids} == {key[1] for key in pids}
    assert done.work["pid"] in {key[0] for key in pids}


def test_values_against_known_arguments(guest: Guest, homes: object) -> None:
    # dd reads blocks of a known size: arg2 of sys_read is hidden in pt_regs, vfs_read has it plainly.
    script = """
        fbt::vfs_read:entry /execname == "dd" && arg2 == 4096/ {
            @n = count(); @sum = sum(arg2); @min = min(arg2); @max = max(arg2); @avg = avg(arg2);
        }
        fbt::vfs_read:entry /execname == "dd" && arg2 == 512/ { @sum = sum(arg2); @max = max(arg2); @min = min(arg2); }
        fbt::vfs_read:return /execname == "dd"/ { @sizes = quantize(arg1); @back = count(); }
    """
    work = "dd if=/dev/zero of=/dev/null bs=4096 count=100 2>&1; dd if=/dev/zero of=/dev/null bs=512 count=50 2>&1"
    done = trace(guest, script, lines(guest, work))
    assert done.trouble() == []
    assert done.table("n") == {(): 100}
    assert done.table("sum") == {(): 100 * 4096 + 50 * 512}
    assert done.table("min") == {(): 512}
    assert done.table("max") == {(): 4096}
    assert done.table("avg") == {(): Average(total=100 * 4096, count=100)}
    (sizes,) = done.table("sizes").values()
    assert isinstance(sizes, Quantize)
    buckets = list(sizes.buckets)
    zero = len(buckets) // 2
    assert buckets[zero + 13] == 100  # 4096 = 2**12
    assert buckets[zero + 10] == 50  # 512 = 2**9
    assert sum(buckets) == done.table("back")[()] >= 150


def test_signed_results(guest: Guest, homes: object) -> None:
    script = """
        fbt::do_sys_openat2:return /execname == "cat" && (int)arg1 < 0/ {
            @failed[(int)arg1] = count(); @low = min((int)arg1); @wide = quantize((int)arg1);
        }
    """
    done = trace(guest, script, lines(guest, "for i in 1 2 3 4 5 6 7; do cat /no/such/file 2>/dev/null; done; true"))
    assert done.trouble() == []
    assert done.table("failed") == {(-2,): 7}
    assert done.table("low") == {(): -2}


def test_every_record_of_a_bounded_rate_arrives(guest: Guest, homes: object) -> None:
    script = """
        fbt::sys_getppid:entry /execname == "syscalls"/ { n++; printf("%d %s %d\\n", n, execname, pid); }
        fbt::sys_getppid:return /execname == "syscalls"/ { trace(arg1); trace(probefunc); }
    """
    total = 3000
    done = trace(guest, script, lines(guest, f"syscalls {total} 1"))
    assert done.trouble() == []
    texts = [text.split() for text in done.texts() if text]
    assert [int(words[0]) for words in texts] == list(range(1, total + 1))
    assert {words[1] for words in texts} == {"syscalls"} and len({words[2] for words in texts}) == 1
    traced = [values for values in done.traced() if values]
    assert len(traced) == total and {values[1] for values in traced} == {"__x64_sys_getppid"}
    assert all(isinstance(values[0], int) and values[0] > 0 for values in traced)
    assert {event.cpu for event in done.fired()} == {1}


def test_counts_without_the_ram_file(guest: Guest, homes: object) -> None:
    script = """
        fbt::sys_getppid:entry /execname == "syscalls"/ { @[execname, cpu] = count(); }
        fbt::sys_getppid:return /execname == "syscalls"/ { @r = count(); }
    """
    done = trace(guest, script, getppid_on_each_cpu(guest, 100_000), ram="none")
    assert done.trouble() == []
    assert done.table() == {("syscalls", 0): 100_000, ("syscalls", 1): 100_000} and done.table("r") == {(): 200_000}
    assert done.stats["stops_to_read"] > 0 and 0 < done.stats["longest_stop_to_read_s"] < 5
