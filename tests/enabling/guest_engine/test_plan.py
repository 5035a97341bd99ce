"""What an enabling will be: who has a block, what of the guest's memory may be asked for, and that the bounds hold."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.enabling.api import EngineOptions
from probekit.enabling.guest_engine.plan import CODE_AT, GuestPlan, plan_guest
from probekit.enabling.guest_engine.stubs import build_code, plan_stubs
from probekit.errors import GuestError, UnsupportedError
from probekit.guest.call_points import CallPoints
from probekit.guest.offsets import KernelServices
from probekit.guest.watchdog import WATCHDOG_SIZE
from probekit.patch.recovery_table import HEADER_SIZE
from tests.codegen.built_program import Function
from tests.codegen.emulated_kernel import CODE, DATA
from tests.codegen.machine import Machine

TEXT = "fbt::: { @c[probefunc] = count(); } fbt::: { trace(arg0); }"


class Facts:
    """The facts that a plan looks at."""

    task = clock = watchdog = traps = None
    kernel = KernelServices()
    preemptible = tsc_shared = False
    tsc_khz = 0
    call_points = CallPoints({}, (CODE - 0x100000,))

    def __init__(self, possible: int, online: tuple[int, ...], ram: int = 0) -> None:
        self.cpu_offsets = {cpu: 0x1000 * cpu for cpu in range(possible)}
        self.online = online
        self.ram = ram


def made(possible: int = 2, online: tuple[int, ...] = (0, 1), **more: Any) -> GuestPlan:
    guest = Machine(TEXT, [Function(), Function()])
    facts: Any = Facts(possible, online, more.pop("ram", 0))
    return plan_guest(guest.program, guest.sites, facts, EngineOptions(**more))


@pytest.mark.parametrize(
    ("possible", "online", "owners"),
    [
        (2, (0, 1), (0, 1)),
        (64, (1, 0), (0, 1, 2)),
        (4, (0, 3), (0, 3, 1)),
    ],
)
def test_cpus_that_may_come_later_share_one_block(
    possible: int, online: tuple[int, ...], owners: tuple[int, ...]
) -> None:
    plan = made(possible, online)
    assert plan.cpus == owners and plan.data.cpus == len(owners)
    assert plan.data.size == plan.data.blocks + len(owners) * plan.layout.size


def test_a_guest_is_asked_for_half_of_its_memory_at_most() -> None:
    plan = made(ram=64 << 20)
    plan.check_room(32 << 20)
    with pytest.raises(GuestError, match="32 MiB of guest memory, and the guest has 64 MiB"):
        plan.check_room((32 << 20) + 1)
    made(ram=0).check_room(1 << 40)  # not known


def test_the_code_is_never_larger_than_its_bound() -> None:
    plan = made()
    context = plan.context(data=DATA, slot=0x2E0C0)
    built = build_code(plan.program, plan.sites, plan_stubs(plan.program, plan.sites, context), context, CODE)
    assert CODE_AT + len(built.code) <= plan.code_bound()
    assert HEADER_SIZE + WATCHDOG_SIZE <= CODE_AT and CODE_AT % 64 == 0


def test_data_memory_has_room_for_the_table_behind_everything_else() -> None:
    plan = made()
    assert plan.table == plan.data.size and plan.data_bound(5000) - plan.table > 5000


def test_clauses_are_only_measured_when_asked_for() -> None:
    assert made().layout.costs is None
    measured = made(measure=True).layout.costs
    assert measured is not None and measured.clauses == 2


def test_sites_that_change_in_stages_need_a_guest_that_takes_int3() -> None:
    with pytest.raises(UnsupportedError, match="INT3"):
        made(staged=frozenset({1}))
