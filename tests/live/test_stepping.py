"""The stop engine steps over probed instructions: exactly, whatever the instruction, whatever faults in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest

from probekit.consumer import events as model
from probekit.isa.access import string_element
from probekit.isa.decode import DecodeError, Insn, decode_run
from probekit.session.attach import attach
from probekit.session.options import Options
from tests.live.inprocess import Outcome, trace
from tests.live.work import lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

ANYTHING = Options(zdefs=True)
CLEARING = "clear_page_erms clear_page_rep".split()
COPYING = "copy_user_enhanced_fast_string rep_movs_alternative clear_user_erms rep_stos_alternative".split()


def _repeats(guest: Guest, names: list[str]) -> dict[str, list[int]]:
    """The offsets of REP string instructions in each of these functions that the kernel has."""
    with attach(guest.gdb) as attachment, attachment.clock.paused():
        symbols = attachment.kernel.symbols
        found: dict[str, list[int]] = {}
        for name in names:
            addr = symbols.addr(name)
            size = symbols.lookup(addr)[0].size if addr is not None else 0  # type: ignore[index]
            code = attachment.text.read_many([(addr, size)])[0] if addr is not None else None
            if addr is not None and code is not None:
                found[name] = [
                    insn.addr - addr for insn in _decoded(code, addr) if string_element(insn.raw) is not None
                ]
    return {name: offsets for name, offsets in found.items() if offsets}


def _decoded(code: bytes, addr: int) -> Iterator[Insn]:
    """Up to what belongs to no instruction."""
    with suppress(DecodeError):
        yield from decode_run(code, addr)


def _counts(done: Outcome) -> dict[tuple[str, int], int]:
    return {(str(name), int(offset)): count for (name, offset), count in done.table().items()}


def test_one_element_after_the_other(guest: Guest, homes: object) -> None:
    """Pages that the kernel clears: REP runs in its slot, and once for each call of the function."""
    names = _repeats(guest, CLEARING)
    assert names, "this kernel clears pages in another way"
    script = ", ".join(f"kinst::{name}:" for name in names) + "{ @[probefunc, probename] = count(); }"
    work = lines(
        guest, "dd if=/dev/zero of=/tmp/zeros bs=65536 count=8 2>/dev/null; cmp -n 524288 /tmp/zeros /dev/zero"
    )
    done = trace(guest, script, work, engine="stop", options=ANYTHING)
    assert done.trouble() == []
    counts = _counts(done)
    used = {name for name, _ in counts}
    assert used, counts
    for name in used:
        each = {offset: count for (function, offset), count in counts.items() if function == name}
        assert set(each) > set(names[name])
        assert len(set(each.values())) == 1 and min(each.values()) > 50, each


def test_faults_in_between(guest: Guest, homes: object) -> None:
    """Copies to and from user memory that is bad, ends too early, or has no page yet: done in place.

    What the system calls return is what they return when nobody looks, and each instruction fires as often as
    the guest engine says, which runs them from copies with exception-table entries of their own.
    """
    names = _repeats(guest, COPYING)
    assert names
    plain = json.loads(guest.check("badptr 1"))
    probes = ", ".join(f"kinst::{name}:{at}" for name, offsets in names.items() for at in offsets)
    script = f'{probes} /execname == "badptr"/ {{ @[probefunc, probename] = count(); }}'
    work = lines(guest, "badptr 1")
    stop, ours = (trace(guest, script, work, engine=engine, options=ANYTHING) for engine in ("stop", "guest"))
    assert json.loads(stop.work) == json.loads(ours.work) == plain
    assert stop.trouble() == ours.trouble() == []
    assert _counts(stop) == _counts(ours) and sum(_counts(stop).values()) > 3


def test_a_lost_trap_is_counted_and_does_no_harm(guest: Guest, homes: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vCPU runs on where the step should have ended, every third time."""
    import time

    from probekit.target.api import StopReason
    from probekit.target.rsp import RspTarget

    names = _repeats(guest, COPYING)
    plain = json.loads(guest.check("badptr 1"))
    whole, steps, lost = RspTarget._step, 0, 0

    def losing(self: RspTarget, vcpu: int) -> StopReason:
        nonlocal steps, lost
        steps += 1
        if steps % 3:
            return whole(self, vcpu)
        lost += 1
        self._session.send_resume(b"vCont;c:" + self._session.thread_id(vcpu))
        time.sleep(0.002)
        return self.stop()

    monkeypatch.setattr(RspTarget, "_step", losing)
    probes = ", ".join(f"kinst::{name}:{at}" for name, offsets in names.items() for at in offsets)
    done = trace(guest, f"{probes} {{ @ = count(); }}", lines(guest, "badptr 1"), engine="stop", options=ANYTHING)
    assert json.loads(done.work) == plain
    assert lost > 0
    told = sum(event.count for event in done.trouble() if isinstance(event, model.Drop) and event.kind == "steps")
    assert 0 < told <= lost
    assert guest.exec("true", timeout=30).status == 0
