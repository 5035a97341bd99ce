"""A kernel whose types are gone or broken: what needs them is refused by name, the rest works, nothing half enabled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from probekit.consumer import events as model
from probekit.errors import ProbekitError
from probekit.ir.build import compile_program
from probekit.session.attach import Attachment, AttachOptions, attach
from probekit.session.guest_types import GuestTypes
from probekit.session.options import Options
from probekit.session.run import Run
from vm.guest import Guest

pytestmark = pytest.mark.guest

MINE = "fbt::sys_getppid:entry"
WORKS = """
    string last; int64_t n[string];
    fbt::sys_getppid:entry { @[probefunc] = count(); @q = quantize(arg0); n["x"]++; last = strjoin("a", probename); }
    fbt::sys_getppid:return { @r[arg1 > 0, last] = count(); trace(timestamp > 0); }
    fbt::sys_getppid:entry { @bytes = sum(*(unsigned char *)((int64_t)caller)); }
    tick-300ms { exit(4); }
"""
NEEDS = {
    "pid": f"{MINE} {{ trace(pid); }}",
    "execname": f"{MINE} {{ @[execname] = count(); }}",
    "vtimestamp": f"{MINE} {{ @ = max(vtimestamp); }}",
    "args": "fbt::vfs_read:entry { trace(args[0]->f_flags); }",
    "variables of threads": f"{MINE} {{ self->x = 1; }}",
    "task_struct": f"{MINE} {{ trace(((struct task_struct *)arg0)->pid); }}",
}


@contextmanager
def changed(guest: Guest, offset: int, new: bytes) -> Iterator[None]:
    """The kernel's type information with some of its bytes changed."""
    with attach(guest.gdb, AttachOptions()) as attachment:
        start = attachment.kernel.symbols.addr("__start_BTF")
        assert start is not None
        with attachment.clock.paused():
            old = attachment.text.read_many([(start + offset, len(new))])[0]
            assert old is not None
            attachment.text.write_many([(start + offset, new)])
    try:
        yield
    finally:
        with attach(guest.gdb, AttachOptions()) as attachment, attachment.clock.paused():
            attachment.text.write_many([(start + offset, old)])


def run(attachment: Attachment, script: str) -> Run:
    """The program to its end."""
    program = compile_program(script, kernel=GuestTypes(attachment))
    with Run(attachment, program, Options()) as made:
        for event in made.events(seconds=20):
            assert not isinstance(event, model.Drop | model.Fault | model.Message), event
        return made


@pytest.mark.parametrize(("offset", "new"), [(0, b"\0\0"), (0x4000, bytes(range(256)) * 64)], ids=["none", "garbage"])
def test_what_needs_types_is_refused_and_the_rest_works(guest: Guest, homes: object, offset: int, new: bytes) -> None:
    with changed(guest, offset, new), attach(guest.gdb, AttachOptions(cache=False)) as attachment:
        assert run(attachment, WORKS).status == 4
        for name, script in NEEDS.items():
            with pytest.raises(ProbekitError) as refused:
                run(attachment, script)
            assert name in str(refused.value), script
        assert run(attachment, WORKS).status == 4, "nothing was left half enabled"
