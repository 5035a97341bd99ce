"""What the launcher reads: apt's and readelf's output, modules, console logs, agent lines."""

import base64

import pytest

from vm.bpftrace import needed_closure, parse_needed
from vm.channel import Reply, parse_reply, script_lines
from vm.console_problems import find_problems, has_panicked
from vm.errors import UnknownKernelError
from vm.guest import parse_ready
from vm.kernels import KERNELS, concrete_package, parse_depends_output, spec
from vm.module_order import canonical, load_order, parse_depends


def test_depends_of_a_metapackage() -> None:
    text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n |Depends: a\n  Suggests: b\n"
    assert parse_depends_output(text) == ("linux-image-6.1.0-56-cloud-amd64", "a")


@pytest.mark.parametrize("name", ["linux-image-6.1.0-56-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64"])
def test_a_concrete_package_is_not_looked_up(name: str) -> None:
    assert concrete_package(name) == name


def test_kernel_names_are_unique_and_unknown_ones_say_what_is_known() -> None:
    names = [row.name for row in KERNELS]
    assert len(set(names)) == len(names)
    with pytest.raises(UnknownKernelError) as caught:
        spec("9.9-none")
    assert caught.value.known == tuple(names)


def test_module_names_and_dependencies() -> None:
    assert canonical("nf-nat.ko.xz") == "nf_nat"
    data = b"\x7fELF\0license=GPL\0depends=dm-bufio,dm-mod\0name=x\0"
    assert parse_depends(data) == ("dm_bufio", "dm_mod")
    assert parse_depends(b"\0depends=\0") == ()
    assert parse_depends(b"nothing") == ()


def test_load_order_puts_dependencies_first_and_leaves_out_what_is_built_in() -> None:
    depends = {"a": ("b", "builtin"), "b": ("c",), "c": (), "other": ()}
    assert load_order(depends, ["a", "absent"]) == ("c", "b", "a")


def test_load_order_ends_on_a_cycle() -> None:
    assert set(load_order({"a": ("b",), "b": ("a",)}, ["a"])) == {"a", "b"}


def test_needed_libraries_are_followed() -> None:
    text = " 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n 0x0e (SONAME) Library soname: [x]\n"
    assert parse_needed(text) == ("libc.so.6",)
    needs = {"prog": ("b", "a"), "a": ("c",), "b": ("c",), "c": ("a",)}
    assert needed_closure(("prog",), needs.__getitem__) == ("a", "b", "c", "prog")


def test_ready_line_counts_only_when_whole() -> None:
    line = "[ 1.0] noise\n[    2.1] PROBEKIT-READY release=6.1.0-56-cloud-amd64 cpus=2 modules=5"
    assert parse_ready(line) is None
    assert parse_ready("PROBEKIT-READY [    2.2] clocksource: Switched\n") is None
    assert parse_ready(line + "\r\n") == {"release": "6.1.0-56-cloud-amd64", "cpus": "2", "modules": "5"}


@pytest.mark.parametrize(
    "line",
    [
        "[    7.88] BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "[    7.88] Oops: 0010 [#1] PREEMPT SMP NOPTI",
        "[   32.54] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:97]",
        "[    1.00] WARNING: CPU: 1 PID: 12 at kernel/x.c:1 f+0x1/0x2",
        "[    1.00] Call Trace:",
        "[    1.00] general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
        "[    1.00] INFO: task sh:12 blocked for more than 120 seconds.",
        "[    1.00] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[    1.00] rcu: INFO: rcu_preempt self-detected stall on CPU",
        "[    1.00] rcu: rcu_preempt kthread starved for 5252 jiffies!",
        "[    1.00] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
        "[    1.00] int3: 0000 [#1] PREEMPT SMP",
        "[    1.00] Kernel panic - not syncing: Fatal exception",
        "[    1.00] demo[57]: segfault at 0 ip 0000000000401000 sp 00007ffd error 4 in demo",
        "[    1.00] traps: demo[57] trap invalid opcode ip:401000 sp:7ffd error:0 in demo",
    ],
)
def test_a_problem_on_the_console_is_found(line: str) -> None:
    assert find_problems(f"quiet\r\n{line}\r\n") == [line]


@pytest.mark.parametrize(
    "line",
    [
        "[    0.74] mtrr: your CPUs had inconsistent fixed MTRR settings",
        '[    1.61] Unstable clock detected, switching default tracing clock to "global"',
        "[    0.17] rcu: Preemptible hierarchical RCU implementation.",
        "[   21.07] hrtimer: interrupt took 31635620 ns",
        "PROBEKIT-READY release=6.1.0-56-cloud-amd64 cpus=2 modules=5",
    ],
)
def test_a_healthy_console_has_no_problem(line: str) -> None:
    assert find_problems(line) == []


def test_a_panic_is_told_from_an_oops() -> None:
    assert has_panicked("[ 1.0] Kernel panic - not syncing: sysrq triggered crash")
    assert not has_panicked("[ 1.0] Oops: 0002 [#1]")


def test_replies() -> None:
    assert parse_reply(b"E abc 0") == Reply("E", "abc", "0")
    assert parse_reply(b"Y abc") == Reply("Y", "abc", "")
    assert parse_reply(b"junk") is None
    assert parse_reply(b"Zx abc d") is None
    assert parse_reply(b"\xff\xfe E") is None


def test_a_script_travels_in_lines_that_the_agent_can_hold() -> None:
    script = "echo 'äöü' \"$x\"\n" * 1000
    lines = script_lines("tok", script)
    assert all(len(line) < 8192 and line.startswith(b"D tok ") and line.endswith(b"\n") for line in lines)
    assert b"".join(base64.b64decode(line.split()[2]) for line in lines).decode() == script
