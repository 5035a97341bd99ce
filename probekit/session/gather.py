"""The facts of one guest, read once while it is stopped."""

from __future__ import annotations

from probekit.codegen.context import TaskOffsets
from probekit.enabling.facts import GuestFacts
from probekit.enabling.sites import TextReader
from probekit.errors import SymbolError, UnsupportedError
from probekit.guest.candidates import CallPlaces, find_landings, safe_point_candidates
from probekit.guest.linux import find_services
from probekit.kernel.image import Kernel
from probekit.patch.ranges import Ranges
from probekit.patch.sites import TextFacts, rewritten_size
from probekit.providers.api import Function
from probekit.providers.fbt import functions

__all__ = ("gather_guest", "gather_text", "guest_functions")

# The kernel replaces the compiler's return thunk by one of these (x86_return_thunk, kernel commit 15e67227c49a and
# later mitigations); which names exist differs from kernel to kernel.
_RETURN_THUNKS = (
    "__x86_return_thunk",
    "zen_untrain_ret",
    "srso_return_thunk",
    "srso_alias_return_thunk",
    "retbleed_return_thunk",
    "its_return_thunk",
    "call_depth_return_thunk",
)
_RETPOLINE = ("__x86_indirect_thunk_array", "__x86_indirect_thunk_rax")


def guest_functions(kernel: Kernel) -> tuple[Function, ...]:
    """Every function of the kernel and its modules; init text, which is gone, left out."""
    gone = [r for pair in (("__init_begin", "__init_end"),) if (r := kernel.symbols.range(*pair)) is not None]
    return functions(kernel.symbols.text(), gone)


def gather_text(kernel: Kernel, read: TextReader) -> TextFacts:
    """What site analysis needs beyond a function's own bytes. ``read``: the quickest way to live text."""
    thunks = frozenset(addr for name in _RETURN_THUNKS if (addr := kernel.symbols.addr(name)) is not None)
    rewritten = [site.addr for site in kernel.jump_sites()]
    live = read([(addr, 2) for addr in rewritten])
    pads = kernel.ftrace_sites()
    return TextFacts(
        # Init functions are gone, but jumps to them are still in the text.
        starts=kernel.symbols.text_addrs(),
        return_thunks=thunks,
        reserved=Ranges.of(
            (addr, addr + rewritten_size(code)) for addr, code in zip(rewritten, live, strict=True) if code is not None
        ),
        hidden_jumps=kernel.hidden_jumps(),
        jump_tables=all(kernel.symbols.addr(name) is None for name in _RETPOLINE),
        pads=frozenset(pads) if len(pads) else None,
    )


def _task_offsets(kernel: Kernel) -> TaskOffsets | None:
    if kernel.btf is None:
        return None
    try:
        task = kernel.btf.struct("task_struct")
        current = kernel.current
        return TaskOffsets(
            current=current.task,
            cpu=current.cpu,
            pid=task.field("pid").offset,
            tgid=task.field("tgid").offset,
            comm=task.field("comm").offset,
        )
    except (SymbolError, UnsupportedError):
        return None


def _preemptible(kernel: Kernel) -> bool:
    """Whether a task may lose its CPU inside kernel code, as the kernel runs now.

    ``preempt_schedule_irq`` is only built with CONFIG_PREEMPTION; with PREEMPT_DYNAMIC (kernel commit 826bfeb37bb4,
    v5.12) the mode is chosen at boot: 0 none, 1 voluntary, and from 2 on preemptible.
    """
    if kernel.symbols.addr("preempt_schedule_irq") is None:
        return False
    mode = kernel.symbols.addr("preempt_dynamic_mode")
    return mode is None or kernel.memory.u32(mode) not in (0, 1)


def _call_places(kernel: Kernel) -> CallPlaces:
    landings = find_landings(kernel.memory.read, kernel.text.start, kernel.text.end)
    if not landings:
        raise UnsupportedError("this kernel's text has no place where a call could come back to", feature="landing")
    return CallPlaces(safe_point_candidates(kernel.symbols.addr, kernel.memory.read_many), landings)


def gather_guest(kernel: Kernel) -> GuestFacts:
    """Services, safe points, per-CPU layout, task offsets. Raises :class:`UnsupportedError` naming what is missing."""
    cpus = kernel.cpus()
    tsc = kernel.symbols.addr("tsc_khz")
    return GuestFacts(
        services=find_services(kernel.symbols.addr),
        places=_call_places(kernel),
        cpu_offsets={cpu: cpus.offsets[cpu] for cpu in cpus.possible},
        online=cpus.online,
        task=_task_offsets(kernel),
        clock=kernel.symbols.addr("ktime_get_mono_fast_ns"),
        preemptible=_preemptible(kernel),
        tsc_khz=kernel.memory.u32(tsc) if tsc is not None else 0,
    )
