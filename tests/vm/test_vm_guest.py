"""A live guest: start, exec, background, list, panic, stop."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm import guest_records
from vm.cli import main
from vm.errors import ExecTimeoutError, GuestExistsError, GuestNotReadyError, NoSuchGuestError
from vm.guest import Guest
from vm.paths import guest_dir

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with Guest.start() as started:
        yield started


def test_both_cpus_and_the_modules_are_up(guest: Guest) -> None:
    assert guest.check("nproc") == "2\n"
    assert guest.check("uname -r").strip() == guest.release
    assert guest.check("grep -c ^null_blk /proc/modules") == "1\n"
    assert guest.console_problems() == []


def test_everything_promised_is_there(guest: Guest) -> None:
    for address in (guest.gdb, guest.qmp, guest.qmp2):
        assert Path(address.removeprefix("unix:")).is_socket()
    assert guest.ram.stat().st_size == guest.memory << 20
    for path in ("/sys/kernel/tracing/available_events", "/sys/kernel/btf/vmlinux", "/sys/kernel/debug"):
        assert guest.exec(f"test -e {path}").status == 0


def test_status_and_output_come_back_as_they_are(guest: Guest) -> None:
    done = guest.exec("printf 'a\\0b \"$HOME\" ü\\r\\n'; echo err >&2; exit 7")
    assert (done.status, done.output) == (7, 'a\0b "$HOME" ü\r\nerr\n')
    assert guest.exec("kill -9 $$").status == 137


def test_a_long_script_and_a_long_output(guest: Guest) -> None:
    assert guest.check("x='" + "y" * 100_000 + "'; echo ${#x}") == "100000\n"
    assert guest.check("seq 20000") == "".join(f"{n}\n" for n in range(1, 20001))


def test_a_command_does_not_wait_for_what_it_leaves_behind(guest: Guest) -> None:
    assert guest.check("sleep 50 & echo done", timeout=10) == "done\n"
    guest.exec("killall sleep")


def test_a_timeout_kills_and_tells_what_was_written(guest: Guest) -> None:
    with pytest.raises(ExecTimeoutError) as caught:
        guest.exec("echo first; sleep 77", timeout=1)
    assert caught.value.output == "first\n"
    assert guest.exec("ps | grep '[s]leep 77'").output == ""


def test_commands_run_in_parallel_and_are_never_mixed(guest: Guest) -> None:
    results: dict[int, str] = {}

    def one(number: int) -> None:
        results[number] = guest.check(f"for i in $(seq 200); do echo {number}-$i; done")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: "".join(f"{n}-{i}\n" for i in range(1, 201)) for n in range(5)}


def test_background_commands(guest: Guest) -> None:
    ends = guest.spawn("echo one; sleep 0.3; echo two; exit 4")
    assert ends.wait(20).status == 4
    assert ends.output() == "one\ntwo\n"
    assert not ends.running()
    endless = guest.spawn("while :; do sleep 0.1; done")
    assert endless.running()
    assert endless.stop().status == 143


def test_syscalls_counts_what_it_was_told(guest: Guest) -> None:
    result = json.loads(guest.check("syscalls 5000 1"))
    assert (result["calls"], result["cpu"]) == (5000, 1)
    assert result["ns_per_call"] > 0


def test_demo_counts_agree_with_its_rounds(guest: Guest) -> None:
    running = guest.spawn("exec demo 0")
    guest.check("sleep 0.5")
    result = json.loads(running.stop().output)
    rounds, calls = result["rounds"], result["calls"]
    assert rounds > 0
    # One getpid before the rounds, one write (the line itself) and one unlinkat after them.
    assert calls["getpid"] == 40 * rounds + 1
    assert calls["getppid"] == 30 * rounds
    assert calls["write"] == 10 * rounds + 1
    assert calls["unlinkat"] == rounds + 1


def test_mixed_ends_without_errors(guest: Guest) -> None:
    result = json.loads(guest.check("mixed 1 3"))
    assert result["lost"] == 0
    assert set(result["errors"].values()) == {0}
    assert all(count > 0 for count in result["operations"].values())
    assert guest.console_problems() == []


def test_a_module_can_be_loaded_and_unloaded(guest: Guest) -> None:
    guest.check("insmod /lib/modules/veth.ko && grep -q ^veth /proc/modules && rmmod veth")


def test_another_process_finds_it_by_name(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    assert Guest.attach(guest.name).pid == guest.pid
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows if row["name"] == guest.name] == ["running"]
    assert main(["exec", guest.name, "--timeout", "20", "echo", "$HOME"]) == 0
    assert capsys.readouterr().out == "$HOME\n"


def test_a_name_is_given_once(guest: Guest) -> None:
    with pytest.raises(GuestExistsError):
        Guest.start(name=guest.name)
    assert guest.check("echo alive") == "alive\n"


def test_a_guest_that_cannot_boot_leaves_nothing() -> None:
    with pytest.raises(GuestNotReadyError) as caught:
        Guest.start(name="vmtest-noinit", append="rdinit=/absent init=/absent")
    assert "panicked" in caught.value.reason
    assert "Kernel panic" in caught.value.console
    assert not guest_dir("vmtest-noinit").exists()


def test_a_panic_is_seen_and_stop_leaves_nothing() -> None:
    with Guest.start(name="vmtest-panic", memory=256, append="pti=on") as guest:
        assert guest.exec("grep -qw pti /proc/cpuinfo").status == 0
        with pytest.raises(ExecTimeoutError):
            guest.exec("echo c > /proc/sysrq-trigger", timeout=2)
        assert guest.panicked()
        assert guest.running()
        assert guest.console_problems()
    assert not guest.ram.exists()
    assert not guest_dir(guest.name).exists()
    assert not guest_records.is_running(guest.record)
    with pytest.raises(NoSuchGuestError):
        Guest.attach(guest.name)
