"""``vtimestamp``: the time that a task has been on a CPU, whatever the scheduler is doing meanwhile."""

from __future__ import annotations

import pytest
import unicorn

from probekit.errors import UnsupportedError
from probekit.guest.offsets import KernelServices
from tests.codegen import compared, emulated_kernel
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.compared import Compared
from tests.codegen.machine import Machine


def test_time_on_a_cpu_and_errors() -> None:
    """``errno`` is what a return returns, when that is an error; a pointer, a count or an entry has none."""
    both = Compared(
        "fbt::: { trace(vtimestamp); trace(errno); @[errno] = count(); trace(errno * 2 - arg0); }",
        functions=(Function(), Function(NOP5 + RET, "return")),
    )
    for returned in (0, 1, -1, -2, -14, -4095, -4096, 0xFFFFFFF2, 0xFFFFFFFF_00000000, 1 << 63, -(1 << 31)):
        both.fire(5, function=0, returned=returned)
        both.fire(5, function=1, returned=returned)
    both.check()


def test_time_on_a_cpu_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt may have taken longer than has passed since the run queue's clock was set: the kernel charges
    it to what comes later."""
    monkeypatch.setattr(emulated_kernel, "INTERRUPTS", (1_000_100 + 101, 1_000_100))
    monkeypatch.setattr(compared, "RUN_NS", 4_000_700 - 4_000_000 + 300)
    both = Compared("fbt::: { trace(vtimestamp); }")
    both.fire(5, function=0)
    both.check()


@pytest.mark.parametrize("field", ["clock", "task_clock", "since", "total"])
def test_time_on_a_cpu_while_another_cpu_brings_it_up_to_date(field: str) -> None:
    """At whichever of the words it comes in between, what is read is all old or all new."""
    guest = Machine("fbt::: { trace(vtimestamp); }")
    places = {
        "clock": guest.gs_base + emulated_kernel.RUN.clock,
        "task_clock": guest.gs_base + emulated_kernel.RUN.task_clock,
        "since": emulated_kernel.TASK + emulated_kernel.RUN.since,
        "total": emulated_kernel.TASK + emulated_kernel.RUN.total,
    }
    old = {name: emulated_kernel.RUN_WORDS[name] for name in places}
    later = 60  # of the 100 ns that have passed, 70 were an interrupt's: all of it is still owed
    new = {"clock": old["clock"] + later, "task_clock": old["task_clock"], "since": old["task_clock"]}
    new["total"] = old["total"] + new["since"] - old["since"]
    known = guest.gs_base + emulated_kernel.RUN.interrupts[1]
    written: list[int] = []

    def bring(uc: unicorn.Uc, _access: int, _addr: int, _size: int, _value: int, _user: object) -> None:
        if not written:
            written.append(1)
            for name, place in places.items():
                uc.mem_write(place, new[name].to_bytes(8, "little"))
            uc.mem_write(known, (emulated_kernel.INTERRUPTS[1] + later).to_bytes(8, "little"))

    guest.on_read(places[field], bring)
    assert guest.fire().bad == ()
    (record,) = guest.drain()
    assert written and int.from_bytes(record.payload[:8], "little") == emulated_kernel.RUN_NS


def test_time_on_a_cpu_that_the_scheduler_charges_to_the_next_task() -> None:
    """A thread's time stays where it was until its account has come so far again; another thread has its own."""
    guest = Machine("fbt::: { trace(vtimestamp); }")
    since = emulated_kernel.TASK + emulated_kernel.RUN.since

    def read() -> int:
        assert guest.fire().bad == ()
        (record,) = guest.drain()
        return int.from_bytes(record.payload[:8], "little")

    assert read() == emulated_kernel.RUN_NS
    guest.write(since, (emulated_kernel.RUN_WORDS["since"] + 100).to_bytes(8, "little"))
    assert read() == emulated_kernel.RUN_NS
    guest.write(since, (emulated_kernel.RUN_WORDS["since"] - 5).to_bytes(8, "little"))
    assert read() == emulated_kernel.RUN_NS + 5
    guest.write(since, (emulated_kernel.RUN_WORDS["since"] + 100).to_bytes(8, "little"))
    guest.write(emulated_kernel.TASK + (emulated_kernel.OFFSETS.start or 0), (0x78).to_bytes(8, "little"))
    assert read() == emulated_kernel.RUN_NS - 100


def test_time_on_a_cpu_inside_of_the_scheduler() -> None:
    """Whoever has the run queue's lock, with interrupts off, gets an answer too."""
    guest = Machine("fbt::: { trace(vtimestamp); }")
    guest.write(guest.gs_base + emulated_kernel.RUN.lock, (1).to_bytes(4, "little"))
    assert guest.fire(flags=2).bad == ()
    (record,) = guest.drain()
    assert int.from_bytes(record.payload[:8], "little") == emulated_kernel.RUN_NS


def test_without_the_schedulers_types_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "kernel", property(lambda _: KernelServices()))
    with pytest.raises(UnsupportedError) as caught:
        Machine("fbt::: { trace(vtimestamp); }")
    assert caught.value.feature == "vtimestamp"
