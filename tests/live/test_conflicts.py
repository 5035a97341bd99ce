"""The guest traces itself: those functions are refused, with the reason, and its own tracing goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from probekit.session.checks import NoMatchError
from probekit.session.options import Options
from tests.guest_fixtures import Kind, only
from tests.live.inprocess import trace
from tests.live.work import lines
from vm.guest import Guest

# One thread for all vCPUs: a kernel that patches its own busy code needs it with this QEMU (see vm/README.md).
SINGLE = Kind("6.1-cloud", tcg="single")
pytestmark = [pytest.mark.guest, only(SINGLE)]

TRACING = "/sys/kernel/tracing"
TRACERS = {
    "ftrace": (
        f"cd {TRACING}; echo vfs_read > set_ftrace_filter; echo function > current_tracer",
        f"cd {TRACING}; echo nop > current_tracer; echo > set_ftrace_filter",
    ),
    "kprobe": (
        f"cd {TRACING}; echo 'p:vfs_read vfs_read' > kprobe_events; echo 1 > events/kprobes/vfs_read/enable",
        f"cd {TRACING}; echo 0 > events/kprobes/vfs_read/enable; echo > kprobe_events",
    ),
}
# Reading the trace calls vfs_read as well: it would never end.
LOOK = (
    f"cd {TRACING}; echo > trace; dd if=/dev/zero of=/dev/null bs=1 count=3 2>/dev/null; "
    "echo 0 > tracing_on; grep -c vfs_read trace; echo 1 > tracing_on"
)


@pytest.fixture(params=TRACERS)
def busy(request: pytest.FixtureRequest, guest: Guest) -> Iterator[None]:
    """The guest's own tracer stands at vfs_read."""
    on, off = TRACERS[request.param]
    guest.check(on)
    yield
    guest.check(off)


def test_a_function_that_the_guest_traces(guest: Guest, homes: object, busy: None) -> None:
    script = 'fbt::vfs_read:entry, fbt::vfs_write:entry /execname == "dd"/ { @[probefunc] = count(); }'
    work = lines(guest, "dd if=/dev/zero of=/dev/null bs=1 count=20 2>/dev/null")
    with pytest.raises(NoMatchError, match=r"fbt::vfs_read:entry .* are available: site is already changed"):
        trace(guest, script, work)
    done = trace(guest, script, work, options=Options(zdefs=True))
    (refused,) = done.refused
    assert refused.probe.name.function == "vfs_read" and not refused.partial
    assert "changed" in refused.reason or "ftrace" in refused.reason
    (message,) = done.trouble()
    assert "fbt::vfs_read:entry" in str(message) and refused.reason in str(message)
    assert ("vfs_read",) not in done.table() and done.table()[("vfs_write",)] >= 20
    # And the guest's own tracing goes on as before.
    assert int(guest.check(LOOK)) >= 3
