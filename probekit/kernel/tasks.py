"""List the guest's tasks, from ``init_task.tasks`` and each group's threads.

The list is used to prove that no sleeping thread will return into code that is to be
changed, so a task carries its kernel stack and its saved stack pointer.

``task_struct.tasks`` links group leaders; threads hang off
``signal->thread_head`` by ``thread_node`` (commit 0c740d0afc3b, v3.14).
``state`` became ``__state`` in commit 2f064a59a11f (v5.14). The stack's size is
``THREAD_SIZE``, taken to be 16 KiB (arch/x86/include/asm/page_64_types.h; kernels with KASAN have 32 KiB).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CField, CStruct
from probekit.kernel.escape import escape_unprintable
from probekit.kernel.linked_list import walk_list
from probekit.kernel.memory import KernelMemory

__all__ = ("THREAD_SIZE", "Task", "read_tasks", "task_addresses")

_MAX_TASKS = 1 << 17
THREAD_SIZE = 16 << 10
"""Bytes of a kernel stack."""


@dataclass(frozen=True, slots=True)
class Task:
    """One thread."""

    addr: int
    """Address of its ``task_struct``."""
    pid: int
    """The thread's ID."""
    tgid: int
    """The process's ID."""
    comm: str
    """The thread's name, escaped."""
    state: int
    """The kernel's number; 0: runnable."""
    stack_start: int
    """Lowest address of its kernel stack."""
    stack_end: int
    """The address after its kernel stack."""
    saved_sp: int
    """The saved stack pointer (``thread.sp``). It is valid while the thread is not ``on_cpu``."""
    on_cpu: bool
    """Whether it runs on a CPU now."""


class _TaskLayout:
    """The members of ``task_struct`` that are needed, looked up once."""

    def __init__(self, btf: Btf) -> None:
        task: CStruct = btf.struct("task_struct")
        self.tasks = task.field("tasks").offset
        self.thread_node = task.field("thread_node").offset
        self.signal = task.field("signal")
        self.thread_head = btf.struct("signal_struct").field("thread_head").offset
        self.wanted: dict[str, CField] = {
            "pid": task.field("pid"),
            "tgid": task.field("tgid"),
            "state": task.find_field("__state") or task.field("state"),
            "stack": task.field("stack"),
            "sp": task.field("thread.sp"),
            "comm": task.field("comm"),
        }
        on_cpu = task.find_field("on_cpu")  # CONFIG_SMP only
        if on_cpu is not None:
            self.wanted["on_cpu"] = on_cpu


def task_addresses(memory: KernelMemory, btf: Btf, init_task: int) -> list[int]:
    """Return the addresses of all threads' ``task_struct``, the idle task of CPU 0 first.

    Other CPUs' idle tasks are on no list: see :meth:`probekit.kernel.kernel.Kernel.task_addresses`.
    Raises :class:`SymbolError` for a list that makes no sense.
    """
    layout = _TaskLayout(btf)
    leaders = [init_task] + [link - layout.tasks for link in walk_list(memory, init_task + layout.tasks, _MAX_TASKS)]
    signals = _words(memory, [leader + layout.signal.offset for leader in leaders], 1)
    heads = [signal + layout.thread_head for (signal,) in signals]
    found: dict[int, None] = {}
    for leader, head, (first, last) in zip(leaders, heads, _words(memory, heads, 2), strict=True):
        found[leader] = None
        # A group with one thread has a thread list of one: both words of its head are equal.
        if first != last:
            found.update((link - layout.thread_node, None) for link in walk_list(memory, head, _MAX_TASKS))
        if len(found) > _MAX_TASKS:
            raise SymbolError("the guest's task list does not end")
    return list(found)


def _words(memory: KernelMemory, addrs: list[int], count: int) -> list[tuple[int, ...]]:
    """Read ``count`` 64-bit words at each address."""
    blobs = memory.read_many([(addr, 8 * count) for addr in addrs])
    if None in blobs:
        raise SymbolError(f"the task list leads to unreadable memory at {addrs[blobs.index(None)]:#x}")
    return [struct.unpack(f"<{count}Q", blob) for blob in blobs if blob is not None]


def read_tasks(memory: KernelMemory, btf: Btf, addrs: Sequence[int]) -> tuple[Task, ...]:
    """Read the tasks whose ``task_struct`` is at ``addrs``, in that order. Raises :class:`SymbolError`."""
    layout = _TaskLayout(btf)
    fields = list(layout.wanted.items())
    blobs = memory.read_many([(addr + at.offset, at.size) for addr in addrs for _, at in fields])
    result = []
    for number, addr in enumerate(addrs):
        part = blobs[number * len(fields) : (number + 1) * len(fields)]
        values: dict[str, bytes] = {}
        for (name, _), blob in zip(fields, part, strict=True):
            if blob is None:
                raise SymbolError(f"the task list leads to unreadable memory at {addr:#x}")
            values[name] = blob
        number_of = {name: int.from_bytes(blob, "little") for name, blob in values.items()}
        comm = escape_unprintable(values["comm"].split(b"\0", 1)[0])
        task = Task(
            addr=addr,
            pid=number_of["pid"],
            tgid=number_of["tgid"],
            comm=comm,
            state=number_of["state"],
            stack_start=number_of["stack"],
            stack_end=number_of["stack"] + THREAD_SIZE,
            saved_sp=number_of["sp"],
            on_cpu=bool(number_of.get("on_cpu")),
        )
        result.append(task)
    return tuple(result)
