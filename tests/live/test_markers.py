"""Provider marker on a module that is the subject: found, typed, counted, switched under running processors."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from probekit.consumer.aggregations import Average
from probekit.enabling.guest_engine.engine import GuestEngine
from probekit.enabling.guest_engine.live_markers import LiveMarkers
from probekit.errors import GuestError
from probekit.ir.build import compile_program
from probekit.kernel.c_types import display
from probekit.patch.edits import Edit
from probekit.probe.names import ProbeDescription
from probekit.session.attach import Attachment, attach
from probekit.session.options import Options
from probekit.session.recover import recover
from probekit.session.run import Run
from tests.guest_fixtures import K61, K61RT, K612, only, share
from tests.live.inprocess import trace
from tests.live.refusal import refused
from tests.live.snapshot import ModuleText
from tests.live.tool import Probekit
from tests.live.work import lines
from tests.support.cross_modify import change
from vm import kernels, module_build
from vm.guest import Guest

KINDS = (K61, K612, K61RT)

pytestmark = [pytest.mark.guest, only(*KINDS)]

MANY = 1000


@pytest.fixture(scope="module", autouse=True)
def subject(guest: Guest) -> Iterator[ModuleText]:
    """The module, loaded; behind all tests its text and data are what they were, and it can go."""
    guest.insmod("pk_demo")
    guest.insmod("pk_broken")
    text = ModuleText.take(guest, "pk_demo", module_build.build("pk_demo", kernels.fetch(guest.kernel)))
    yield text
    assert text.changes(guest) == []
    guest.check("rmmod pk_demo pk_broken")


def test_every_marker_is_found_and_typed(guest: Guest, homes: object) -> None:
    with attach(guest.gdb) as attachment:
        pauses = attachment.clock.count
        probes = list(attachment.registry.match(ProbeDescription.parse("marker:pk_demo::")))
        assert attachment.clock.count == pauses, "the guest runs while its memory file is read"
    found = {p.name.name: p for p in probes}
    assert len([n for n in found if n[0] == "m" and n[1:].isdecimal()]) == MANY
    assert found["hot"].name.function == "hot" and found["m042"].name.function == "many0"
    assert all(p.marker is not None and not p.marker.refusal for p in probes)
    typed, inlined, generic = (found[n].marker for n in ("typed", "inlined", "generic"))
    assert typed is not None and inlined is not None and generic is not None
    assert [display(t) for t in typed.types] == [
        *("int", "unsigned int", "char *", "long", "unsigned long long", "void *", "char", "unsigned int"),
        *("short", "unsigned char"),
    ]
    assert len(inlined.loads) == 2 and len(typed.loads) == 1
    assert generic.loads == () and generic.generic


def test_arguments_are_what_the_module_hands_over(guest: Guest, homes: object) -> None:
    script = """
        marker:pk_demo:typed:typed {
            printf("%d %d %d %d", arg0, arg1, arg3, arg4);
            printf(" %d %d %d %d", arg6, arg7, arg8, arg9);
        }
        marker:pk_demo::bare { @bare = count(); }
        marker:pk_demo::inlined { @inlined = sum(arg0); }
        marker:pk_demo::generic { @generic = avg(arg0); }
    """
    work = "for c in 'typed 300' 'others 4' 'generic 10'; do echo $c >/proc/pk_demo; done"
    done = trace(guest, script, lines(guest, work))
    assert done.trouble() == []
    expected = [
        f"{-n} {0x80000000 + n} {-n} {n - (1 << 63)} {ord('a') + (n & 7)} {0xF0} {-n} {n & 0xFF}" for n in range(300)
    ]  # fmt: skip
    assert done.texts() == expected
    assert done.table("bare") == {(): 4}
    assert done.table("inlined") == {(): sum(range(4)) * 2 + 4 * 1000}  # one marker at two places
    assert done.table("generic") == {(): Average(total=45, count=10)}


def test_arguments_have_the_types_of_the_format(guest: Guest, homes: object) -> None:
    script = """
        marker:pk_demo::typed {
            @low = sum(args[0]); @text[stringof(args[2])] = count(); @char[args[6]] = count(); @byte = max(args[9]);
            @big[args[4] > 0x8000000000000000] = count(); @short = min(args[8]);
        }
    """
    done = trace(guest, script, lines(guest, "echo typed 300 >/proc/pk_demo"))
    assert done.trouble() == []
    assert done.table("low") == {(): -sum(range(300))}
    assert done.table("text") == {("odd",): 150, ("even",): 150}
    assert done.table("char") == {(ord("a") + n,): 38 - (n > 3) for n in range(8)}
    assert done.table("byte") == {(): 255} and done.table("short") == {(): -299}
    assert done.table("big") == {(0,): 1, (1,): 299}


def test_a_thousand_at_once(guest: Guest, homes: object) -> None:
    script = "marker:pk_demo:many*:m* { @[probename] = count(); @turns = sum(arg0); @numbers = sum(arg1); }"
    done = trace(guest, script, lines(guest, "echo many 20 >/proc/pk_demo"))
    assert done.trouble() == []
    assert done.table() == {(f"m{n:03}",): 20 for n in range(MANY)}
    assert done.table("turns") == {(): MANY * sum(range(20))}
    assert done.table("numbers") == {(): 20 * sum(range(MANY))}


def test_broken_markers_are_refused_each_with_its_reason(guest: Guest, probekit: Probekit) -> None:
    listed = probekit.run("--json", "-l", "-v", "-n", "marker:pk_broken::")
    reasons = {e["probe"]["name"]: e["reason"] for e in listed.events if e["type"] == "refused"}
    assert len(reasons) == 16
    for name, word in (
        ("half_conversion", "middle of a conversion"),
        ("unknown_conversion", "%Q"),
        ("a_float", "%f"),
        ("a_star", "%*d"),
        ("eleven", "11 arguments"),
        ("wild_format", "unreadable"),
        ("null_format", "unreadable"),
        ("wild_call", "not code"),
        ("call_into_data", "not code"),
        ("flags_of_another", "another version"),
        ("site_is_no_load", "not a load immediate"),
        ("site_is_no_text", "not code"),
        ("no_site", "no place"),
    ):
        assert word in reasons[name], name
    assert sum(name.startswith("0xffff") for name in reasons) == 3  # names that are none
    assert "\x1b" not in listed.stdout
    # And everything else goes on.
    script = "marker:pk_broken::, marker:pk_demo::hot { @[probename] = count(); }"
    done = trace(guest, script, lines(guest, "echo x >/proc/pk_broken; echo hot 9 >/proc/pk_demo"))
    assert done.table() == {("good",): 1, ("hot",): 9}
    assert len(done.refused) == 16
    refused(probekit.run("--engine", "stop", "-n", "marker:pk_demo::hot { @ = count(); }"), "marker", "--engine guest")


def test_a_marker_that_is_on_already_is_left_alone(guest: Guest, homes: object) -> None:
    with attach(guest.gdb) as attachment:
        (probe,) = attachment.registry.match(ProbeDescription.parse("marker:pk_demo::hot"))
        assert probe.marker is not None
        ((load, old),) = probe.marker.loads
        with attachment.clock.paused():
            attachment.text.write_many([(load, old[:1] + b"\x01")])
    try:
        script = "marker:pk_demo::hot, marker:pk_demo::generic { @[probename] = count(); }"
        work = lines(guest, "echo hot 9 >/proc/pk_demo; echo generic 3 >/proc/pk_demo")
        done = trace(guest, script, work)
        assert done.table() == {("generic",): 3}
        assert [(r.probe.name.name, r.reason) for r in done.refused] == [
            ("hot", "another listener in the guest uses it already")
        ]
    finally:
        with attach(guest.gdb) as attachment, attachment.clock.paused():
            attachment.text.write_many([(load, old)])


class _Counters:
    """The module's own per-CPU counters of its hot path, read from outside."""

    def __init__(self, attachment: Attachment) -> None:
        self._read = attachment.text.read_many
        offsets = attachment.facts.cpu_offsets
        symbols = [attachment.kernel.symbols.find(name, "pk_demo")[0].addr for name in ("hot_on", "hot_off")]
        self._where = [(addr + offsets[cpu] & (1 << 64) - 1, 8) for cpu in attachment.facts.online for addr in symbols]

    def passed(self) -> int:
        """How often the hot path was run, on all CPUs."""
        return sum(struct.unpack("<Q", word or bytes(8))[0] for word in self._read(self._where))


def _engine(run: Run) -> GuestEngine:
    """The engine of a program that traces."""
    engine: Any = run._guest._engine if run._guest is not None else None
    assert isinstance(engine, GuestEngine)
    return engine


def test_switched_ten_thousand_times_under_full_speed(
    guest: Guest, homes: object, request: pytest.FixtureRequest
) -> None:
    """No execution is lost or torn: the module's own counts of both ways add up to what it was told to run, and the
    clause saw each that went the marked way. Both vCPUs run through the site between all stages."""
    wanted = 100 * len(share(guest, request.config.getoption("--activations") // 100, KINDS))
    turns = 0
    moved: dict[int, int] = {0: 0, 1: 0, 2: 0}
    before = _shown(guest)
    burst = 2_000_000
    work = [
        guest.spawn(f"while ! test -e /tmp/enough; do echo hot {burst} >/proc/pk_demo; echo x; done") for _ in (0, 1)
    ]
    with attach(guest.gdb) as attachment:
        counters = _Counters(attachment)
        program = compile_program("marker:pk_demo::hot { @ = count(); }")

        def between(edit: Edit, stage: list[int]) -> None:
            # The guest runs: have the site passed before the next stage.
            with attachment.clock.paused():
                at = counters.passed()
            deadline = time.monotonic() + 5
            while True:
                time.sleep(0.0005)
                with attachment.clock.paused():
                    now = counters.passed()
                if now > at + 100 or time.monotonic() > deadline:
                    break
            moved[stage[0] % 3] += now > at + 100
            stage[0] += 1

        def toggle() -> bool:
            nonlocal turns
            markers = _engine(run)._patches.markers
            assert isinstance(markers, LiveMarkers)
            (on,) = markers._loads._edits
            # The last turn switches the marker off. What is on its way to the call then still has it counted.
            for _ in range(100 if turns + 100 < wanted else 101 - turns % 2):
                edit = on if turns % 2 else Edit(on.addr, on.new, on.old)
                stage = [0]
                look = (lambda e=edit, s=stage: between(e, s)) if turns % 10 == 0 else (lambda: None)
                made = change(attachment.text, attachment.target, [edit], paused=attachment.clock.paused, between=look)
                assert made == (edit,)
                turns += 1
            if turns < wanted:
                return False
            time.sleep(0.5)  # the tracing ends with nobody on the marked way
            return True

        run = Run(attachment, program, Options(), ended=toggle)
        with run:
            for _ in run.events(seconds=1500):
                pass
            (seen,) = (row.value for row in run.aggregations()[0].rows)
    guest.check("touch /tmp/enough")
    bursts = sum(w.wait(120).output.count("x") for w in work)
    # On a busy host a burst may outlast the wait for readers; then memory stays behind until a recovery.
    assert recover(guest.gdb).problems == ()
    guest.check("rm /tmp/enough")
    after = _shown(guest)
    on, off = (sum(after[cpu][i] - before[cpu][i] for cpu in after) for i in (0, 1))
    assert turns >= wanted
    assert on + off == bursts * burst
    assert seen == on and on > 0 and off > 0
    # Between all stages the site was passed: with the INT3 over it too, so that the bypass was taken.
    looked = -(-turns // 10)
    assert all(count >= 0.9 * looked for count in moved.values()), (moved, looked)


def _shown(guest: Guest) -> dict[int, tuple[int, int]]:
    rows = [tuple(map(int, line.split())) for line in guest.check("cat /proc/pk_demo").splitlines()]
    return {cpu: (on, off) for cpu, on, off in rows}


def test_disconnected_while_all_processors_are_inside(guest: Guest, homes: object) -> None:
    """Again and again, with the marked way taken all the time: what is unmapped is used by nobody."""
    work = [guest.spawn("while ! test -e /tmp/enough; do echo hot 100000 >/proc/pk_demo; done") for _ in (0, 1)]
    for _ in share(guest, 9, KINDS):
        done = trace(guest, "marker:pk_demo::hot { @ = count(); @by[execname] = sum(arg0); }", lambda: time.sleep(0.2))
        assert done.trouble() == [] and done.table()[()] > 0
        assert guest.console_problems() == []
    guest.check("touch /tmp/enough")
    for one in work:
        one.wait(60)
    guest.check("rm /tmp/enough")


def test_killed_while_markers_are_on(guest: Guest, probekit: Probekit, subject: ModuleText) -> None:
    work = guest.spawn("while ! test -e /tmp/enough; do echo hot 100000 >/proc/pk_demo; done")
    for turn in share(guest, 6, KINDS):
        running = probekit.start("-v", "-n", "marker:pk_demo:: { @[probename] = count(); }")
        running.wait_said("enabling")
        time.sleep(0.25 * turn)
        running.process.kill()
        running.finish()
        done = recover(guest.gdb)
        assert done.problems == (), turn
        assert guest.exec("true", timeout=30).status == 0
        assert recover(guest.gdb).clean
        assert subject.changes(guest) == [], turn
        assert guest.console_problems() == []
    guest.check("touch /tmp/enough")
    work.wait(60)
    guest.check("rm /tmp/enough")
    assert guest.check("cat /sys/module/pk_demo/refcnt").strip() == "0"


def test_a_module_that_went_meanwhile(guest: Guest, homes: object) -> None:
    with attach(guest.gdb) as attachment:
        program = compile_program("marker:pk_broken::good { @ = count(); }")
        run = Run(attachment, program, Options())
        list(attachment.registry.match(ProbeDescription.parse("marker:::")))
        guest.check("rmmod pk_broken")
        with pytest.raises(GuestError, match="unloaded meanwhile"):
            list(run.events(seconds=1))
    guest.insmod("pk_broken")
    assert recover(guest.gdb).clean
