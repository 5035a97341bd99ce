"""INT3 in the guest: never where it is itself handled, and never in the way of the guest's own."""

from __future__ import annotations

import pytest

from probekit.patch.insn_sites import FunctionInsns, instruction_sites
from probekit.session.attach import Attachment, attach
from probekit.session.options import Options
from tests.guest_fixtures import Kind, only
from tests.live.inprocess import Outcome, trace
from tests.live.tool import Probekit
from tests.live.work import lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

CALLS = 20_000
ROOMY = Options(aggsize=8 << 20)
REFUSED = {
    "exc_int3": "noinstr",
    "asm_exc_nmi": "entry code",
    "do_int3": "NOKPROBE",
    "notify_die": "NOKPROBE",
    "nmi_handle": "in an NMI",
    "__switch_to": "between two tasks' stacks",
    "__rcu_read_lock": "while an INT3 is handled",
    "hw_breakpoint_exceptions_notify": "while an INT3 is handled",
    "register_die_notifier": "while an INT3 is handled",
    "__x86_return_thunk": "thunk",
}
# One thread for all vCPUs: a kernel that patches its own busy code needs it with this QEMU (see vm/README.md).
SINGLE = Kind("6.1-cloud", tcg="single")
TRACING = "/sys/kernel/tracing"


def _instructions(attachment: Attachment, name: str) -> FunctionInsns:
    function = next(f for f in attachment.functions if f.name == name)
    code = attachment.read_code([(function.addr, function.size)])[0]
    assert code is not None
    return instruction_sites(function.addr, code, attachment.text_facts)


def _short(found: FunctionInsns) -> int:
    """The offset of an instruction that only a trap reaches."""
    return next(offset for offset, site in found.sites.items() if site.trap and len(site.old) > 1)


def test_all_that_runs_while_a_trap_is_handled_is_refused(guest: Guest, homes: object) -> None:
    """Every function is counted with and without a trap at each call: what runs more often is on the trap's way."""
    with attach(guest.gdb) as attachment:
        offset = _short(_instructions(attachment, "__x64_sys_getppid"))
        refused = attachment.text_facts.refused
        where: dict[str, list[int]] = {}
        for function in attachment.functions:
            where.setdefault(function.name, []).append(function.addr)
    work = lines(guest, f"syscalls {CALLS} 0")
    script = f"fbt:::entry {{ @[probefunc] = count(); }} kinst::sys_getppid:{offset} {{ @traps = count(); }}"
    unrefused: set[str] | None = None
    for _ in range(3):  # what the guest happened to do more of besides, it does not do every time
        plain = trace(guest, "fbt:::entry { @[probefunc] = count(); }", work, options=ROOMY)
        trapped = trace(guest, script, work, options=ROOMY)
        assert plain.trouble() == trapped.trouble() == []
        assert trapped.table("traps")[()] >= CALLS
        usual = plain.table()
        more = {key[0] for key, count in trapped.table().items() if count - usual.get(key, 0) > CALLS * 3 // 4}
        assert "kprobe_int3_handler" in more and "__rcu_read_lock" in more  # it is seen at all
        found = {str(name) for name in more if all(refused.reason(addr) is None for addr in where[str(name)])}
        unrefused = found if unrefused is None else unrefused & found
        if not unrefused:
            break
    assert unrefused == set()


def test_what_is_refused_says_why_and_the_rest_goes_on(guest: Guest, homes: object) -> None:
    probes = ", ".join(f"kinst::{name}:0" for name in REFUSED)
    ours = ", ".join(f"kinst::sys_getppid:{offset}" for offset in (0, 1, 9999))
    script = f"{probes}, {ours} {{ @[probefunc] = count(); }}"
    done = trace(guest, script, lines(guest, "syscalls 500 0"), options=Options(zdefs=True))
    (message,) = done.trouble()
    assert "does not match any probes that are available" in str(message) and "more: -l -v says why" in str(message)
    ((name, count),) = done.table().items()
    assert name == ("__x64_sys_getppid",) and count >= 500
    reasons = {r.probe.name.function: r.reason for r in done.refused if r.probe.name.function != "__x64_sys_getppid"}
    assert set(reasons) == set(REFUSED)
    for function, word in REFUSED.items():
        assert word in reasons[function], function
    middle, outside = (r.reason for r in done.refused if r.probe.name.function == "__x64_sys_getppid")
    assert "in the middle of an instruction; the nearest begin at 0 and " in middle
    assert "offset 9999 is outside the function" in outside


def test_the_listing_says_what_a_probe_costs(guest: Guest, probekit: Probekit) -> None:
    with attach(guest.gdb) as attachment:
        found = _instructions(attachment, "__x64_sys_getppid")
    long = next(offset for offset, site in found.sites.items() if not site.trap)
    for offset, word in ((_short(found), "int3: a trap for each firing"), (long, "jump")):
        listed = probekit.run("-l", "-v", "-n", f"kinst::sys_getppid:{offset}")
        assert listed.status == 0 and word in listed.stdout
    bare = probekit.run("-l", "-n", ":::")
    assert "kinst" not in bare.stdout and "vfs_read" in bare.stdout


def test_returns_without_room_for_a_jump_are_probed_by_a_trap(guest: Guest, probekit: Probekit) -> None:
    listed = probekit.run("-l", "-v", "-n", "fbt:::return", limit=120)
    assert listed.status == 0
    assert listed.stdout.count("int3: a trap for each firing") >= 3
    assert "has no room for a jump" not in listed.stdout.replace("2-byte conditional jump to another function", "")


def _foreign_probe(guest: Guest, offset: int) -> None:
    guest.check(
        f"cd {TRACING}; echo 'p:foreign vfs_read+{offset}' > kprobe_events; "
        "echo 0 > /proc/sys/debug/kprobes-optimization; echo 1 > events/kprobes/foreign/enable"
    )


def _foreign_hits(guest: Guest) -> int:
    rows = [line.split() for line in guest.check(f"cat {TRACING}/kprobe_profile").splitlines()]
    return next(int(row[1]) for row in rows if row and row[0] == "foreign")


@only(SINGLE)
def test_the_guests_own_kprobe_beside_ours(guest: Guest, homes: object) -> None:
    """Its int3 is in one function, ours all over another and in front of it: each takes its own, and ends alone."""
    with attach(guest.gdb) as attachment:
        found = _instructions(attachment, "vfs_read")
    starts = sorted(found.sites)
    theirs = starts[4]  # every call passes it
    _foreign_probe(guest, theirs)
    try:
        work = lines(guest, "dd if=/dev/zero of=/dev/null bs=1 count=1000 2>/dev/null")
        script = """
            kinst::vfs_write: /execname == "dd"/ { @[probename] = count(); }
            kinst::vfs_read: /execname == "dd"/ { @read[probename] = count(); }
        """
        before = _foreign_hits(guest)
        done: Outcome = trace(guest, script, work)
        assert done.trouble() == []
        assert _foreign_hits(guest) >= before + 1000
        assert done.table()[("0",)] >= 1000
        assert done.table("read")[("0",)] >= 1000
        # From its int3 on nothing is known of where instructions begin.
        behind = {r.probe.name.name for r in done.refused if r.probe.name.function == "vfs_read"}
        assert str(theirs) not in {str(key[0]) for key in done.table("read")}
        assert behind, "nothing was refused behind a foreign int3"
        again = _foreign_hits(guest)
        work()
        assert _foreign_hits(guest) >= again + 1000  # and it goes on without us
    finally:
        guest.check(f"cd {TRACING}; echo 0 > events/kprobes/foreign/enable; echo > kprobe_events")
