"""Find the facts of one guest once, while it is stopped: kernel functions by symbol, offsets by the kernel's types."""

from __future__ import annotations

from probekit.errors import SymbolError, TargetError, UnsupportedError
from probekit.guest.call_points import CallPoints, find_landings, safe_point_candidates
from probekit.guest.facts import GuestFacts
from probekit.guest.grace_period import find_grace_services
from probekit.guest.linux import find_services
from probekit.guest.module_refs import find_module_refs
from probekit.guest.offsets import KernelServices, PathOffsets, RunTime, TaskOffsets
from probekit.guest.stack_search import StackSearch
from probekit.guest.tracepoints import find_tracepoint_services
from probekit.guest.trap_registration import Fixup, KsymLayout, NotifierLayout, TrapFacts, find_trap_services
from probekit.guest.watchdog import WatchdogServices, find_watchdog_services
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CStruct
from probekit.kernel.kernel import Kernel
from probekit.kernel.syscalls import find_syscall_entry
from probekit.kernel.tracepoints import probe_list_layout
from probekit.target.api import Target

__all__ = (
    "find_guest_facts",
    "find_trap_facts",
    "is_emulated",
)


_PAGE = 4096


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
            parent=_offset(task, "real_parent"),
            start=_offset(task, "start_time"),
            cred=_offset(task, "cred"),
            uid=_credential(kernel.btf, "uid"),
            gid=_credential(kernel.btf, "gid"),
            status=_status(kernel.btf, task),
        )
    except (SymbolError, UnsupportedError):
        return None


def _offset(struct: CStruct, name: str) -> int | None:
    found = struct.find_field(name)
    return found.offset if found is not None else None


def _status(btf: Btf, task: CStruct) -> int | None:
    """Return the offset of ``thread_info.status``, which is in the task (commit c65eacbe290b, v4.9)."""
    info = _offset(task, "thread_info")
    if info is None:
        return None
    status = _offset(btf.struct("thread_info"), "status")
    return None if status is None else info + status


def _credential(btf: Btf, name: str) -> int | None:
    """Return the offset of the real uid or gid in ``struct cred``."""
    return _offset(btf.struct("cred"), name)


_FIVE_LEVELS = 0xFF00000000000000
_FOUR_LEVELS = 0xFFFF800000000000


def _kernel_services(kernel: Kernel) -> KernelServices:
    """Find the functions of the kernel that clauses may call.

    With page tables of 5 levels ``page_offset_base`` lies below the kernel's half of an address space of 4 levels.
    """
    find = kernel.symbols.addr
    loads = {size: addr for size in (1, 2, 4, 8) if (addr := find(f"__get_user_nocheck_{size}")) is not None}
    direct_map = find("page_offset_base")
    low = direct_map is not None and kernel.memory.u64(direct_map) < _FOUR_LEVELS
    return KernelServices(
        load=loads,
        start=_FIVE_LEVELS if low else _FOUR_LEVELS,
        user_copy=find("copy_from_user_nofault"),
        user_text=find("strncpy_from_user_nofault"),
        to_user=find("copy_to_user_nofault"),
        user_okay=find("nmi_uaccess_okay"),
        send_signal=find("bpf_send_signal"),
        panic=find("panic"),
        stack=find("stack_trace_save_regs"),
        wall=find("ktime_get_real_fast_ns"),
        preempt_count=_preempt_count(kernel),
        percpu_offset=find("this_cpu_off"),
        syscalls=find_syscall_entry(kernel.symbols, kernel.btf),
        run_time=_run_time(kernel),
        paths=_paths(kernel.btf),
    )


def _paths(btf: Btf | None) -> PathOffsets | None:
    """Find the offsets that lead to paths. Returns None without types, or when a member is missing."""
    if btf is None:
        return None
    try:
        task, fs, path = btf.struct("task_struct"), btf.struct("fs_struct"), btf.struct("path")
        dentry, mount, memory = btf.struct("dentry"), btf.struct("mount"), btf.struct("mm_struct")
        name, inside = dentry.field("d_name").offset, mount.field("mnt").offset
        return PathOffsets(
            fs=task.field("fs").offset,
            memory=task.field("mm").offset,
            cwd=fs.field("pwd").offset,
            root=fs.field("root").offset,
            path_mount=path.field("mnt").offset,
            path_dentry=path.field("dentry").offset,
            mount=inside,
            mount_root=btf.struct("vfsmount").field("mnt_root").offset,
            mount_parent=mount.field("mnt_parent").offset - inside,
            mountpoint=mount.field("mnt_mountpoint").offset - inside,
            parent=dentry.field("d_parent").offset,
            name=name + btf.struct("qstr").field("name").offset,
            name_size=name + btf.struct("qstr").field("len").offset,
            hashed=dentry.field("d_hash").offset + btf.struct("hlist_bl_node").field("pprev").offset,
            arg_start=memory.field("arg_start").offset,
            arg_end=memory.field("arg_end").offset,
        )
    except SymbolError:
        return None


def _run_time(kernel: Kernel) -> RunTime | None:
    """Find where the scheduler keeps a task's time. Returns None without types, or when a member is missing."""
    queue, now = kernel.symbols.addr("runqueues"), kernel.symbols.addr("sched_clock_cpu")
    if kernel.btf is None or queue is None or now is None:
        return None
    try:
        entity, rq = kernel.btf.struct("sched_entity"), kernel.btf.struct("rq")
        at = kernel.btf.struct("task_struct").field("se").offset
        return RunTime(
            total=at + entity.field("sum_exec_runtime").offset,
            since=at + entity.field("exec_start").offset,
            clock=queue + rq.field("clock").offset,
            task_clock=queue + rq.field("clock_task").offset,
            now=now,
            lock=queue + (rq.find_field("__lock") or rq.field("lock")).offset,
            interrupts=_interrupt_time(kernel, kernel.btf, queue),
        )
    except SymbolError:
        return None


def _interrupt_time(kernel: Kernel, btf: Btf, queue: int) -> tuple[int, int] | None:
    spent, known = kernel.symbols.addr("cpu_irqtime"), _offset(btf.struct("rq"), "prev_irq_time")
    if spent is None or known is None:
        return None
    return spent + btf.struct("irqtime").field("total").offset, queue + known


def _preempt_count(kernel: Kernel) -> int | None:
    """Return the offset of the preemption count from the GS base: a per-CPU variable, or in ``pcpu_hot``."""
    count = kernel.symbols.addr("__preempt_count")
    if count is not None:
        return count
    hot = kernel.symbols.addr("pcpu_hot")
    if hot is None or kernel.btf is None:
        return None
    try:
        return hot + kernel.btf.struct("pcpu_hot").field("preempt_count").offset
    except SymbolError:
        return None


def _tsc_shared(kernel: Kernel, *, emulated: bool) -> bool:
    """Return whether all CPUs have the same time stamp counter.

    QEMU's emulated CPUs share one, even when the guest's kernel thinks otherwise. Under KVM the kernel's own verdict
    counts: it compares the counters when it starts each CPU.
    """
    if emulated:
        return True
    unstable = kernel.symbols.addr("tsc_unstable")
    return unstable is not None and kernel.memory.u32(unstable) == 0


def _preemptible(kernel: Kernel) -> bool:
    """Return whether a task may lose its CPU inside kernel code, as the kernel runs now.

    ``preempt_schedule_irq`` is only built with CONFIG_PREEMPTION; with PREEMPT_DYNAMIC (kernel commit 826bfeb37bb4,
    v5.12) the mode is chosen at boot: 0 none, 1 voluntary, and from 2 on preemptible.
    """
    if kernel.symbols.addr("preempt_schedule_irq") is None:
        return False
    mode = kernel.symbols.addr("preempt_dynamic_mode")
    return mode is None or kernel.memory.u32(mode) not in (0, 1)


def _call_points(kernel: Kernel) -> CallPoints:
    landings = find_landings(kernel.memory.read, kernel.text.start, kernel.text.end)
    if not landings:
        raise UnsupportedError("this kernel's text has no `jmp .` to which a call could return", feature="landing")
    return CallPoints(safe_point_candidates(kernel.symbols.addr, kernel.memory.read_many), landings)


def _watchdog(kernel: Kernel) -> WatchdogServices | None:
    if kernel.btf is None:
        return None
    try:
        return find_watchdog_services(kernel.symbols.addr, kernel.btf.struct("hrtimer"))
    except (SymbolError, UnsupportedError):
        return None


def is_emulated(target: Target) -> bool:
    """Return whether QEMU emulates the guest's CPUs (TCG); False with KVM, or when the stub does not say."""
    try:
        return "disabled" in target.monitor("info kvm")
    except (UnsupportedError, TargetError):
        return False  # a stub without a monitor does not say


def find_guest_facts(kernel: Kernel, *, emulated: bool = False) -> GuestFacts:
    """Find all facts. The guest is stopped. ``emulated``: see :func:`is_emulated`.

    Raises :class:`UnsupportedError`, which names what the kernel lacks, when the engines cannot work without it.
    """
    cpus = kernel.cpus()
    tsc, ram = kernel.symbols.addr("tsc_khz"), kernel.symbols.addr("_totalram_pages")
    trapping = find_trap_facts(kernel)
    return GuestFacts(
        services=find_services(kernel.symbols.addr),
        grace=find_grace_services(kernel.symbols.addr, kernel.btf),
        module_refs=find_module_refs(kernel.symbols.addr, kernel.btf),
        modules={module.name: module.addr for module in kernel.modules},
        tracepoints=find_tracepoint_services(kernel.symbols.addr, probe_list_layout(kernel.btf)),
        watchdog=_watchdog(kernel),
        call_points=_call_points(kernel),
        cpu_offsets={cpu: cpus.offsets[cpu] for cpu in cpus.possible},
        online=cpus.online,
        task=_task_offsets(kernel),
        clock=kernel.symbols.addr("ktime_get_mono_fast_ns"),
        preemptible=_preemptible(kernel),
        kernel=_kernel_services(kernel),
        tsc_khz=kernel.memory.u32(tsc) if tsc is not None else 0,
        stack_search=StackSearch(kernel.tasks, kernel.symbols.addr("stack_trace_save_tsk")),
        ram=kernel.memory.u64(ram) * _PAGE if ram is not None else 0,
        tsc_shared=_tsc_shared(kernel, emulated=emulated),
        traps=None if isinstance(trapping, str) else trapping,
    )


def find_trap_facts(kernel: Kernel) -> TrapFacts | str:
    """Find how the kernel handles INT3. Returns the reason, as a clause, when our INT3 cannot be handled."""
    btf, hooks = kernel.btf, find_trap_services(kernel.symbols.addr)
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
            block=NotifierLayout(
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
    """Return the layout of BPF symbols, or None where a copied instruction cannot have an exception-table entry."""
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
