"""Find where no INT3 may be put in the guest's text, which text the kernel rewrites, and where its return thunks are.

All of it comes from the kernel itself: its own list of places that must not be probed, its jump labels, and the
handlers on its notifier chains.
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.enabling.sites import TextReader
from probekit.errors import SymbolError, TargetError
from probekit.guest.find_facts import find_trap_facts
from probekit.kernel.kernel import Kernel
from probekit.kernel.linked_list import walk_list
from probekit.patch.ranges import Ranges
from probekit.patch.refused_text import RefusedText
from probekit.patch.sites import TextFacts, rewritten_size

__all__ = (
    "branch_tracking",
    "gather_text",
    "refused_text",
)

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


_MAX_HANDLERS = 256
_NMI_TYPES = 4  # NMI_LOCAL, NMI_UNKNOWN, NMI_SERR, NMI_IO_CHECK
_INT3_PATH = "runs while an INT3 is handled: another one in it would never end"
_NMI_PATH = "runs in an NMI: the IRET that ends an INT3 would unblock NMIs, and a second one could nest"
# Functions that run between the trap and our notifier, and after it. NOKPROBE does not name them, because kprobes
# handles its own traps before notifiers are called.
_PATH_NAMES = (
    "__rcu_read_lock", "__rcu_read_unlock", "rcu_read_unlock_special", "rcu_is_watching", "__rcu_is_watching",
    "register_die_notifier", "unregister_die_notifier",
)  # fmt: skip
_NMI_NAMES = (
    "nmi_cpu_backtrace", "nmi_handle", "default_do_nmi", "io_check_error", "pci_serr_error", "unknown_nmi_error",
    "mem_parity_error", "watchdog_overflow_callback", "nmi_trigger_cpumask_backtrace", "perf_event_nmi_handler",
)  # fmt: skip
_IBT_WORD, _IBT_BIT = 18, 20  # X86_FEATURE_IBT: a bit of CPUID leaf 7, EDX, in the kernel's x86_capability


def refused_text(kernel: Kernel) -> RefusedText:
    """Return where no INT3 may be put, and why: the kernel's own list, the code that handles INT3, NMI handlers."""
    ranges = [(item.start, item.end, item.reason) for item in kernel.exclusions()]
    ranges += _functions(kernel, (kernel.symbols.addr(name) for name in _PATH_NAMES), _INT3_PATH)
    ranges += _functions(kernel, _die_handlers(kernel), _INT3_PATH)
    ranges += _functions(kernel, (kernel.symbols.addr(name) for name in _NMI_NAMES), _NMI_PATH)
    ranges += _functions(kernel, _nmi_handlers(kernel), _NMI_PATH)
    return RefusedText.of(ranges)


def _functions(kernel: Kernel, addrs: Iterator[int | None], reason: str) -> list[tuple[int, int, str]]:
    """Return ``(start, end, reason)`` of the whole function at each address."""
    found = []
    for addr in addrs:
        symbol = kernel.symbols.lookup(addr) if addr is not None else None
        if symbol is not None:
            found.append((symbol[0].addr, symbol[0].end, reason))
    return found


def _die_handlers(kernel: Kernel) -> Iterator[int]:
    """Yield the functions of all die notifiers, because each may be called before ours.

    Stops at 256 notifiers, or where the chain leads to memory that cannot be read.
    """
    head, btf = kernel.symbols.addr("die_chain"), kernel.btf
    if head is None or btf is None:
        return
    try:
        block = btf.struct("notifier_block")
        call, following = block.field("notifier_call").offset, block.field("next").offset
        at = kernel.memory.u64(head + btf.struct("atomic_notifier_head").field("head").offset)
        for _ in range(_MAX_HANDLERS):
            if not at:
                return
            yield kernel.memory.u64(at + call)
            at = kernel.memory.u64(at + following)
    except (SymbolError, TargetError):
        return


def _nmi_handlers(kernel: Kernel) -> Iterator[int]:
    """Yield the functions registered for NMIs: ``nmi_desc[]``, each a list of ``struct nmiaction``."""
    table, btf = kernel.symbols.addr("nmi_desc"), kernel.btf
    desc = btf.find_struct("nmi_desc") if btf is not None else None
    action = btf.find_struct("nmiaction") if btf is not None else None
    if table is None or desc is None or action is None:
        return
    try:
        for number in range(_NMI_TYPES):
            links = walk_list(kernel.memory, table + number * desc.size + desc.field("head").offset, _MAX_HANDLERS)
            for link in links:
                yield kernel.memory.u64(link - action.field("list").offset + action.field("handler").offset)
    except (SymbolError, TargetError):
        return


def branch_tracking(kernel: Kernel) -> bool:
    """Return whether the kernel runs with IBT, by its own list of CPU features; True when the list is not known."""
    cpu = kernel.symbols.addr("boot_cpu_data")
    layout = kernel.btf.find_struct("cpuinfo_x86") if kernel.btf is not None else None
    words = layout.find_field("x86_capability") if layout is not None else None
    if cpu is None or words is None or words.size <= 4 * _IBT_WORD:
        return True
    return bool(kernel.memory.u32(cpu + words.offset + 4 * _IBT_WORD) >> _IBT_BIT & 1)


def gather_text(kernel: Kernel, read: TextReader) -> TextFacts:
    """Find the facts that site analysis needs besides a function's bytes. ``read``: reads live text."""
    thunks = frozenset(addr for name in _RETURN_THUNKS if (addr := kernel.symbols.addr(name)) is not None)
    rewritten = [site.addr for site in kernel.jump_sites()]
    live = read([(addr, 2) for addr in rewritten])
    pads = kernel.ftrace_sites()
    trapping = find_trap_facts(kernel)
    return TextFacts(
        # These include init functions: they were freed, but jumps to them are still in the text.
        starts=kernel.symbols.text_addrs(),
        return_thunks=thunks,
        reserved=Ranges.of(
            (addr, addr + rewritten_size(code)) for addr, code in zip(rewritten, live, strict=True) if code is not None
        ),
        hidden_jumps=kernel.hidden_jumps(),
        jump_tables=all(kernel.symbols.addr(name) is None for name in _RETPOLINE),
        pads=frozenset(pads) if len(pads) else None,
        text=Ranges.of((part.start, part.end) for part in kernel.text_ranges()),
        trapping=not isinstance(trapping, str),
        no_traps=trapping if isinstance(trapping, str) else "",
        refused=refused_text(kernel),
        faulting=frozenset(kernel.ex_table()),
        fixups=not isinstance(trapping, str) and trapping.ksym is not None,
        branch_tracking=branch_tracking(kernel),
    )
