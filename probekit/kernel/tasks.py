"""The guest's tasks: walked from ``init_task.tasks`` and each group's threads.

Used to prove that no sleeping thread will return into code that is to be
changed, so a task carries its kernel stack and its saved stack pointer.

``task_struct.tasks`` links group leaders; threads hang off
``signal->thread_head`` by ``thread_node`` (commit 0c740d0afc3b, v3.14).
``state`` became ``__state`` in commit 2f064a59a11f (v5.14). The stack's size is
``THREAD_SIZE``, 16 KiB on x86-64 (32 KiB with KASAN): taken from BTF's
``init_stack`` when possible, otherwise 16 KiB.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.memory import Memory
from probekit.kernel.modules import walk_list
from probekit.kernel.text import clean_text
from probekit.kernel.types import Field, StructType

__all__ = ("THREAD_SIZE", "Task", "read_tasks", "task_addresses")

_MAX_TASKS = 1 << 17
THREAD_SIZE = 16 << 10


@dataclass(frozen=True, slots=True)
class Task:
    """One thread. ``state`` is the kernel's number (0: runnable). ``saved_sp``: meaningful while not ``on_cpu``."""

    addr: int
    pid: int
    tgid: int
    comm: str
    state: int
    stack_start: int
    stack_end: int
    saved_sp: int
    on_cpu: bool


class _Layout:
    """The members of ``task_struct`` that are needed, found once."""

    def __init__(self, btf: Btf) -> None:
        task: StructType = btf.struct("task_struct")
        self.tasks = task.field("tasks").offset
        self.thread_node = task.field("thread_node").offset
        self.signal = task.field("signal")
        self.thread_head = btf.struct("signal_struct").field("thread_head").offset
        self.wanted: dict[str, Field] = {
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


def task_addresses(memory: Memory, btf: Btf, init_task: int) -> list[int]:
    """Where every thread is, the idle task of CPU 0 first. Other CPUs' idle tasks are on no list: see ``Kernel``."""
    layout = _Layout(btf)
    leaders = [init_task] + [link - layout.tasks for link in walk_list(memory, init_task + layout.tasks, _MAX_TASKS)]
    signals = _words(memory, [leader + layout.signal.offset for leader in leaders], 1)
    heads = [signal + layout.thread_head for (signal,) in signals]
    found: dict[int, None] = {}
    for leader, head, (first, last) in zip(leaders, heads, _words(memory, heads, 2), strict=True):
        found[leader] = None
        # A group with one thread has a thread list of one: two words tell.
        if first != last:
            found.update((link - layout.thread_node, None) for link in walk_list(memory, head, _MAX_TASKS))
        if len(found) > _MAX_TASKS:
            raise SymbolError("the guest's task list does not end")
    return list(found)


def _words(memory: Memory, addrs: list[int], count: int) -> list[tuple[int, ...]]:
    """``count`` 64-bit words at each address."""
    blobs = memory.read_many([(addr, 8 * count) for addr in addrs])
    if None in blobs:
        raise SymbolError(f"the task list leads to unreadable memory at {addrs[blobs.index(None)]:#x}")
    return [struct.unpack(f"<{count}Q", blob) for blob in blobs if blob is not None]


def read_tasks(memory: Memory, btf: Btf, addrs: Sequence[int]) -> tuple[Task, ...]:
    """Tasks by the addresses of their ``task_struct``."""
    layout = _Layout(btf)
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
        comm = clean_text(values["comm"].split(b"\0", 1)[0])
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
