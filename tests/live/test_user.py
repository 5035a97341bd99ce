"""As a user types it: lists, options, outputs, transports."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from probekit import attach
from probekit.consumer.events import Attached
from tests.guest_fixtures import K61, only
from tests.live import refusal
from tests.live.tool import Probekit
from vm.guest import Guest

pytestmark = pytest.mark.guest

GETPPID = 'fbt::sys_getppid:entry /execname == "syscalls"/'


# -- lists --------------------------------------------------------------------------------------------------------


def test_the_list_is_the_kernels_own(guest: Guest, probekit: Probekit) -> None:
    done = probekit.run("-l", "-v", "--json")
    assert done.status == 0, done.stderr
    listed, refused = done.of("listing"), done.of("refused")
    fbt = [entry["probe"] for entry in listed if entry["probe"]["provider"] == "fbt"]
    entries = {probe["function"] for probe in fbt if probe["name"] == "entry"}
    assert len(entries) > 30_000
    # What the kernel itself calls traceable is there (its init text is gone, and one address has one name).
    own = guest.check("cut -d' ' -f1 /sys/kernel/tracing/available_filter_functions", timeout=120).split()
    missing = {name for name in own if name not in entries}
    assert len(missing) < len(own) * 0.03, sorted(missing)[:50]
    assert {"vfs_read", "do_sys_openat2", "__x64_sys_getppid", "schedule"} <= entries
    bad = [p["function"] for p in fbt if ".cold" in p["function"] or p["function"].startswith(("__pfx_", "__cfi_"))]
    assert bad == []
    assert any(".constprop." in p["function"] or ".isra." in p["function"] for p in fbt)
    # Everything that is left out has a reason, and nothing is both.
    assert all(entry["reason"] for entry in refused)
    reasons = {(e["probe"]["function"], e["probe"]["name"]): e["reason"] for e in refused}
    assert "pad" in reasons[("__x64_sys_ni_syscall", "entry")]
    assert ("do_exit", "return") in reasons and "never returns" in reasons[("do_exit", "return")]
    # One probe for one address: functions of the same name are told apart by it.
    ids = [entry["id"] for entry in listed]
    assert len(ids) == len(set(ids))
    twice = [name for name, count in Counter(p["function"] for p in fbt if p["name"] == "entry").items() if count > 1]
    assert twice
    sites = [e["notes"][0] for e in listed if e["probe"]["function"] == twice[0] and e["probe"]["name"] == "entry"]
    assert len(sites) == len(set(sites)) > 1


def test_modules_have_their_own_name(guest: Guest, probekit: Probekit) -> None:
    done = probekit.run("-l", "--json", "-n", "fbt:null_blk::entry")
    names = {entry["probe"]["module"] for entry in done.of("listing")}
    assert names == {"null_blk"} and len(done.of("listing")) > 20


@only(K61)
def test_text_of_a_list(guest: Guest, probekit: Probekit) -> None:
    done = probekit.run("-l", "-n", "fbt::vfs_rea*:entry", "-n", "BEGIN")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["ID", "PROVIDER", "MODULE", "FUNCTION", "NAME"]
    rows = [line[1:] for line in lines[1:]]
    assert ["fbt", "vmlinux", "vfs_read", "entry"] in rows and ["dtrace", "BEGIN"] in rows
    number = next(line[0] for line in lines if line[-2:] == ["vfs_read", "entry"])
    # And the ID names the probe.
    by_id = probekit.run("-l", "--json", "-n", number)
    assert [e["probe"]["function"] for e in by_id.of("listing")] == ["vfs_read"]


# -- programs -----------------------------------------------------------------------------------------------------


def test_begin_ticks_and_guest_share_variables(guest: Guest, probekit: Probekit) -> None:
    running = probekit.live(
        "BEGIN { step = 3; total = 0; }",
        f"{GETPPID} {{ total += step; calls++; this->twice = 2 * calls; @top = max(this->twice); }}",
        "tick-50ms /calls > 0/ { ticks++; step = 3; }",
        'END { printf("%d %d %d", total, calls, ticks > 0); }',
    )
    guest.check("syscalls 1000 0")
    done = running.finish(signal.SIGINT)
    assert done.status == 0 and done.lost == []
    (end,) = done.fired("END")
    assert end["text"].split()[:2] == ["3000", "1000"]
    assert done.table("top") == {(): 2000}


@only(K61)
@pytest.mark.parametrize("json", [False, True])
def test_what_begin_says_is_seen_when_all_probes_are_live(guest: Guest, probekit: Probekit, json: bool) -> None:
    """The work begins as soon as "go" is read, and each of its calls is counted. Enabling takes its time."""
    flags = ("--json",) if json else ("-q",)
    begin = ("-n", 'BEGIN { printf("go\\n"); }') if not json else ()
    calls = (f'{GETPPID} {{ @["calls"] = count(); }}', "fbt:::entry { @every = count(); }")
    running = probekit.start(*flags, *begin, *(word for clause in calls for word in ("-n", clause)))
    running.wait_line('"attached"' if json else "go")
    guest.check("syscalls 1234 0")
    done = running.finish(signal.SIGINT)
    assert done.status == 0, done.stderr
    if json:
        (found,) = [e["data"][0]["value"] for e in done.of("aggregation") if e["data"][0]["key"]]
    else:
        found = int(next(line.split()[1] for line in done.stdout.splitlines() if "calls" in line))
    assert found == 1234


@only(K61)
def test_the_first_event_comes_when_all_probes_are_live(guest: Guest, homes: object) -> None:
    with (
        attach(guest.gdb) as ours,
        ours.trace(f"{GETPPID} {{ @ = count(); }} fbt:::entry {{ @every = count(); }}") as run,
    ):
        events = run.events(seconds=60)
        assert isinstance(next(events), Attached)
        guest.check("syscalls 1234 0")
        events.close()
        found = {aggregation.name: aggregation.rows[0].value for aggregation in run.aggregations()}
    assert found[""] == 1234 and found["every"] > 1234


@only(K61)
def test_probes_that_cannot_be_enabled_are_told(guest: Guest, probekit: Probekit) -> None:
    """In each form: a name, with and without -Z, and a glob; the guest is not changed for a name."""
    for name, reason in (
        ("fbt::do_exit:return", "it never returns"),
        ("kinst::sys_getppid:9999", "outside the function"),
    ):
        done = probekit.run("-xerrtags", "-n", "BEGIN { }", "-n", f"{name} {{ }}")
        refusal.refused(done, f"[D_PDESC_ZERO] line 1: probe description {name} ", reason, "-Z")
    ends = ("-n", "tick-50ms { exit(3); }")
    allowed = probekit.run("-Z", "-q", "-n", "fbt::do_exit:return { }", *ends)
    assert allowed.status == 3 and "do_exit:return does not match any probes that are available: it" in allowed.stderr
    glob = probekit.run("-q", "-n", "fbt::do_exit:* { }", *ends)
    assert glob.status == 3
    assert "'fbt::do_exit:* ' matched 1 probe, 1 not available (-l -v says why)" in glob.stderr


@only(K61)
def test_attached_with_nothing_enabled(guest: Guest, probekit: Probekit) -> None:
    running = probekit.start("--json", "-n", "tick-97ms { trace(0); }").wait_live()
    assert json.loads(guest.check("syscalls 10000 0"))["calls"] == 10000
    done = running.finish(signal.SIGTERM)
    assert done.status == 0 and done.stats["sites"] == 0


@only(K61)
def test_compile_only_checks_against_the_guest(guest: Guest, probekit: Probekit) -> None:
    assert probekit.run("-e", "-n", f"{GETPPID} {{ @ = count(); }}").status == 0
    assert probekit.run("-e", "-n", "fbt::no_such_thing:entry").status == 1


@only(K61)
def test_output_appends_and_stays_apart_from_messages(guest: Guest, probekit: Probekit, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    for number in (1, 2):
        done = probekit.run(
            "-o", str(out), "-n", f'BEGIN {{ printf("run {number}\\n"); }}', "-n", "tick-50ms{exit(0);}"
        )
        assert done.status == 0 and done.stdout == "" and "matched" in done.stderr
    text = out.read_text()
    assert text.index("run 1") < text.index("run 2") and "matched" not in text


@only(K61)
def test_figures_with_v(guest: Guest, probekit: Probekit) -> None:
    done = probekit.run("-v", "-n", "fbt::vfs_*:", "-n", "tick-100ms{exit(0);}")
    assert done.status == 0
    for word in ("enable pause", "disable pause", "guest bytes", "sites"):
        assert word in done.stderr, word


@only(K61)
def test_small_buffers_drop_and_say_so(guest: Guest, probekit: Probekit) -> None:
    running = probekit.live(
        f'{GETPPID} {{ printf("%d", pid); }}',
        f"{GETPPID} {{ n++; @many[n] = count(); }}",
        options=("-x", "bufsize=4k", "-x", "aggsize=4k", "-x", "switchrate=1s"),
    )
    guest.check("syscalls 200000 0")
    done = running.finish(signal.SIGINT)
    assert done.status == 0
    drops: Counter[str] = Counter()
    for drop in done.lost:
        drops[drop["kind"]] += drop["count"]
    printed = sum("text" in event for event in done.fired("entry"))
    # Nothing is lost without a word.
    assert printed + drops["principal"] == 200_000
    assert sum(done.table("many").values()) + drops["aggregation"] == 200_000
    assert drops["principal"] > 0 and drops["aggregation"] > 0


# -- transports and engines ---------------------------------------------------------------------------------------


@only(K61)
def test_through_gdb(guest: Guest, probekit: Probekit) -> None:
    if subprocess.run(["gdb", "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("gdb is not installed")
    tool = Probekit(f"gdb:{guest.gdb}", probekit.env)
    running = tool.live(f"{GETPPID} {{ @ = count(); }}", "fbt::sys_getppid:return { @r = count(); }")
    guest.check("syscalls 20000 1")
    done = running.finish(signal.SIGINT)
    assert done.status == 0 and done.table() == {(): 20_000}, done.stderr
    assert done.table("r")[()] >= 20_000


@only(K61)
def test_the_stop_engine_by_option(guest: Guest, probekit: Probekit) -> None:
    running = probekit.live(f"{GETPPID} {{ @[cpu] = count(); }}", options=("--engine", "stop"))
    guest.check("syscalls 100 1")
    done = running.finish(signal.SIGINT)
    assert done.status == 0 and done.table() == {(1,): 100}, done.stderr


@only(K61)
def test_the_environment_names_the_target(guest: Guest, probekit: Probekit) -> None:
    env = {"PROBEKIT_TARGET": guest.gdb, "DTRACE_OPT_QUIET": "1"}
    done = probekit.start("-n", f"{GETPPID} {{}}", "-n", "tick-50ms{exit(9);}", target=False, env=env).finish()
    assert (done.status, done.stderr) == (9, "")
