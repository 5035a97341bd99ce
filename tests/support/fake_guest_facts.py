"""Where everything is in a fake guest, and the facts that probekit would find in it: its kernel has everything."""

from __future__ import annotations

from probekit.guest.call_points import CallPoints
from probekit.guest.facts import GuestFacts
from probekit.guest.grace_period import GraceServices
from probekit.guest.linux import find_services
from probekit.guest.module_refs import ModuleRefs
from probekit.guest.stack_search import StackSearch
from probekit.guest.tracepoints import TracepointServices
from probekit.guest.trap_registration import Fixup, KsymLayout, NotifierLayout, TrapFacts
from probekit.guest.watchdog import WatchdogServices
from probekit.kernel.tasks import Task
from probekit.kernel.tracepoints import ProbeListLayout

__all__ = (
    "CANDIDATE",
    "CHAIN",
    "CPU_OFFSETS",
    "DATA",
    "EXEC",
    "EXEC_END",
    "FACTS",
    "FAULTING",
    "KERNEL",
    "LAND",
    "LINKS",
    "MODULE",
    "MODULES",
    "PAD",
    "PAGE",
    "PERCPU",
    "PROBES",
    "RESIDENT",
    "STACKS",
    "STACK_SIZE",
    "TASK_VCPUS",
    "TEXT",
    "TEXT_SIZE",
    "TIMER",
    "TRACEPOINT",
    "USER",
    "addresses",
)

TEXT, TEXT_SIZE = 0xFFFFFFFF81000000, 0x2000
PAD, CANDIDATE, LAND = b"\x0f\x1f\x44\x00\x00", TEXT + 0x100, TEXT + 0x200  # nop dword ptr [rax + rax]
FAULTING = TEXT + 0x600
FUNCTIONS = TEXT + 0x100000
KERNEL = 0xFFFFFFFF82000000
MODULES, MODULE, CHAIN, TRACEPOINT, PROBES = (KERNEL + 0x100 * n for n in range(5))
STACKS, STACK_SIZE = 0xFFFFC90000100000, 0x4000
EXEC, EXEC_END, DATA, PERCPU = 0xFFFFFFFFC0400000, 0xFFFFFFFFC1400000, 0xFFFFC90000400000, 0x2F000
CPU_OFFSETS = {0: 0xFFFF888000000000, 1: 0xFFFF888000100000}
PAGE = 4096
USER = 0x402000
TASK_VCPUS, RESIDENT = (1, 2), 3
LINKS = 16  # of a BPF symbol: its place on the list
TIMER = 24  # offset of a watchdog's timer in its words

_NAMES = (
    "execmem_alloc execmem_free vzalloc vfree __alloc_percpu free_percpu set_memory_rox synchronize_rcu "
    "synchronize_rcu_tasks register_die_notifier unregister_die_notifier bpf_ksym_add bpf_ksym_del try_module_get "
    "module_put hrtimer_setup hrtimer_start hrtimer_cancel call_rcu call_rcu_tasks call_srcu synchronize_srcu "
    "tracepoint_register tracepoint_unregister stack_trace_save_tsk"
).split()
addresses = {name: FUNCTIONS + 16 * number for number, name in enumerate(_NAMES)}
"""Of the kernel's functions, by name."""


def _facts() -> GuestFacts:
    a = addresses
    ksym = KsymLayout(
        ksym=16, start=0, end=8, name=32, links=LINKS, is_prog=48, prog=96, entries=104, table=112, aux_size=128,
        prog_aux=8, prog_size=32,
    )  # fmt: skip
    bounds = [(STACKS + n * STACK_SIZE, STACKS + (n + 1) * STACK_SIZE) for n in range(4)]
    tasks = tuple(
        Task(0x1000 * n, n, n, f"t{n}", 0, start, end, end - 64, on_cpu=False) for n, (start, end) in enumerate(bounds)
    )
    return GuestFacts(
        services=find_services(a.get),
        call_points=CallPoints({CANDIDATE: len(PAD)}, (LAND,)),
        cpu_offsets=CPU_OFFSETS,
        online=(0, 1),
        task=None,
        clock=None,
        preemptible=True,
        module_refs=ModuleRefs(a["try_module_get"], a["module_put"], MODULES, 8, 0),
        modules={"nullb": MODULE},
        grace=GraceServices(
            starts=((a["call_rcu"], ()), (a["call_rcu_tasks"], ())),
            traced=((a["call_srcu"], (0x777,)),),
            callback=0x999, stride=64, head=0, function=8, done=16, lock=24, links=32, holdout=None,
        ),
        tracepoints=TracepointServices(
            a["tracepoint_register"], a["tracepoint_unregister"], ((a["synchronize_srcu"], 0x777),),
            ProbeListLayout(funcs=0, entry_size=16, function=0, data=8),
        ),
        watchdog=WatchdogServices(
            a["hrtimer_setup"], True, a["hrtimer_start"], a["hrtimer_cancel"], size=64, function=8, base=16
        ),
        tsc_khz=0,
        stack_search=StackSearch(lambda: tasks, a["stack_trace_save_tsk"]),
        traps=TrapFacts(
            int3=3, regs=0, ip=128, cs=136, block=NotifierLayout(0, 8, 16, 24), chain=CHAIN, ksym=ksym,
            fixups={FAULTING: Fixup(TEXT + 0x700, 1)},
        ),
    )  # fmt: skip


FACTS = _facts()
"""Of its kernel, which has everything."""
