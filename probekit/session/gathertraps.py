"""What INT3 sites need to know of a guest, read once while it is stopped: how its traps are taken, and where not.

Everything is told by the kernel itself: types from its BTF, its own list of places where it puts no probe, the
handlers on its chains.
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.errors import SymbolError, TargetError
from probekit.guest.traphooks import BlockLayout, Fixup, KsymLayout, TrapFacts, find_hooks
from probekit.kernel.image import Kernel
from probekit.kernel.modules import walk_list
from probekit.patch.refused import RefusedText

__all__ = ("branch_tracking", "gather_traps", "refused_text")

_MOST_HANDLERS = 256
_NMI_TYPES = 4  # NMI_LOCAL, NMI_UNKNOWN, NMI_SERR, NMI_IO_CHECK
_INT3_PATH = "runs while an INT3 is handled: another one in it would never end"
_NMI_PATH = "runs in an NMI, which the return from an INT3 would let in again"
# Between the trap and our notifier, and behind it: what NOKPROBE does not name because kprobes takes its own traps
# earlier than notifiers are called.
_PATH_NAMES = (
    "__rcu_read_lock", "__rcu_read_unlock", "rcu_read_unlock_special", "rcu_is_watching", "__rcu_is_watching",
    "register_die_notifier", "unregister_die_notifier",
)  # fmt: skip
_NMI_NAMES = (
    "nmi_cpu_backtrace", "nmi_handle", "default_do_nmi", "io_check_error", "pci_serr_error", "unknown_nmi_error",
    "mem_parity_error", "watchdog_overflow_callback", "nmi_trigger_cpumask_backtrace", "perf_event_nmi_handler",
)  # fmt: skip
_IBT_WORD, _IBT_BIT = 18, 20  # X86_FEATURE_IBT: CPUID leaf 7, EDX, in the kernel's own copy


def gather_traps(kernel: Kernel) -> TrapFacts | str:
    """How INT3 is taken, or why it cannot be, as a clause."""
    btf, hooks = kernel.btf, find_hooks(kernel.symbols.addr)
    if btf is None:
        return "INT3 needs the kernel's type information, which this guest does not have"
    if "die_notifier" not in hooks.functions:
        return "this kernel has no chain of die notifiers"
    if kernel.symbols.addr("__cfi_kprobe_exceptions_notify") is not None:
        return "this kernel only calls functions that it was built with (kCFI)"
    try:
        block, regs = btf.struct("notifier_block"), btf.struct("pt_regs")
        int3 = btf.constant("DIE_INT3")
        head = kernel.symbols.addr("die_chain")
        return TrapFacts(
            int3=2 if int3 is None else int3,
            regs=btf.struct("die_args").field("regs").offset,
            ip=regs.field("ip").offset,
            cs=regs.field("cs").offset,
            block=BlockLayout(
                call=block.field("notifier_call").offset,
                following=block.field("next").offset,
                priority=block.field("priority").offset,
                size=block.size,
            ),
            chain=head + btf.struct("atomic_notifier_head").field("head").offset if head is not None else None,
            ksym=_ksym_layout(kernel) if "bpf_ksym" in hooks.functions else None,
            fixups={addr: Fixup(*fixup) for addr, fixup in kernel.exception_entries().items()},
        )
    except SymbolError as error:
        return f"this kernel's types are not as expected ({error})"


def _ksym_layout(kernel: Kernel) -> KsymLayout | None:
    """None where a copied instruction cannot have an exception-table entry."""
    btf = kernel.btf
    if btf is None or kernel.symbols.addr("search_bpf_extables") is None:
        return None
    aux, prog, entry = (btf.find_struct(n) for n in ("bpf_prog_aux", "bpf_prog", "exception_table_entry"))
    # The third word is a number since kernel commit 46d28947d987 (v5.16); before, the offset of a handler.
    if aux is None or prog is None or entry is None or entry.find_field("data") is None:
        return None
    try:
        return KsymLayout(
            ksym=aux.field("ksym").offset,
            start=aux.field("ksym.start").offset - aux.field("ksym").offset,
            end=aux.field("ksym.end").offset - aux.field("ksym").offset,
            name=aux.field("ksym.name").offset - aux.field("ksym").offset,
            links=aux.field("ksym.lnode").offset - aux.field("ksym").offset,
            is_prog=aux.field("ksym.prog").offset - aux.field("ksym").offset,
            prog=aux.field("prog").offset,
            entries=aux.field("num_exentries").offset,
            table=aux.field("extable").offset,
            aux_size=-(-aux.size // 16) * 16,
            prog_aux=prog.field("aux").offset,
            prog_size=prog.size,
        )
    except SymbolError:
        return None


def refused_text(kernel: Kernel) -> RefusedText:
    """Where no INT3 may be put, with the reason: the kernel's own list, the path of INT3 itself, NMI handlers."""
    ranges = [(item.start, item.end, item.reason) for item in kernel.exclusions()]
    ranges += _functions(kernel, (kernel.symbols.addr(name) for name in _PATH_NAMES), _INT3_PATH)
    ranges += _functions(kernel, _die_handlers(kernel), _INT3_PATH)
    ranges += _functions(kernel, (kernel.symbols.addr(name) for name in _NMI_NAMES), _NMI_PATH)
    ranges += _functions(kernel, _nmi_handlers(kernel), _NMI_PATH)
    return RefusedText.of(ranges)


def _functions(kernel: Kernel, addrs: Iterator[int | None], reason: str) -> list[tuple[int, int, str]]:
    """The whole function at each address."""
    found = []
    for addr in addrs:
        symbol = kernel.symbols.lookup(addr) if addr is not None else None
        if symbol is not None:
            found.append((symbol[0].addr, symbol[0].end, reason))
    return found


def _die_handlers(kernel: Kernel) -> Iterator[int]:
    """The functions of all die notifiers: each may be called before ours."""
    head, btf = kernel.symbols.addr("die_chain"), kernel.btf
    if head is None or btf is None:
        return
    try:
        block = btf.struct("notifier_block")
        call, following = block.field("notifier_call").offset, block.field("next").offset
        at = kernel.memory.u64(head + btf.struct("atomic_notifier_head").field("head").offset)
        for _ in range(_MOST_HANDLERS):
            if not at:
                return
            yield kernel.memory.u64(at + call)
            at = kernel.memory.u64(at + following)
    except (SymbolError, TargetError):
        return


def _nmi_handlers(kernel: Kernel) -> Iterator[int]:
    """What is registered for NMIs: ``nmi_desc[]``, each a list of ``struct nmiaction``."""
    table, btf = kernel.symbols.addr("nmi_desc"), kernel.btf
    desc = btf.find_struct("nmi_desc") if btf is not None else None
    action = btf.find_struct("nmiaction") if btf is not None else None
    if table is None or desc is None or action is None:
        return
    try:
        for number in range(_NMI_TYPES):
            links = walk_list(kernel.memory, table + number * desc.size + desc.field("head").offset, _MOST_HANDLERS)
            for link in links:
                yield kernel.memory.u64(link - action.field("list").offset + action.field("handler").offset)
    except (SymbolError, TargetError):
        return


def branch_tracking(kernel: Kernel) -> bool:
    """Whether the kernel runs with IBT, by its own list of what the processor has; True when that is not known."""
    cpu = kernel.symbols.addr("boot_cpu_data")
    layout = kernel.btf.find_struct("cpuinfo_x86") if kernel.btf is not None else None
    words = layout.find_field("x86_capability") if layout is not None else None
    if cpu is None or words is None or words.size <= 4 * _IBT_WORD:
        return True
    return bool(kernel.memory.u32(cpu + words.offset + 4 * _IBT_WORD) >> _IBT_BIT & 1)
