"""Take a firing's arguments and built-ins from a stopped vCPU: a :class:`probekit.enabling.host.firing.World`."""

from __future__ import annotations

import time
from collections.abc import Callable

from probekit.codegen.context import MAX_ERRNO
from probekit.codegen.storage import MAX_STACK_DEPTH
from probekit.enabling.host.dentries import MountedDentry, path_text
from probekit.errors import GuestError, UnsupportedError
from probekit.guest.facts import GuestFacts
from probekit.guest.offsets import PathOffsets, TaskOffsets
from probekit.guest.stacks import GuestStacks
from probekit.interp.run import Value
from probekit.kernel.syscalls import ABI_NAMES, CALL_NUMBER, TS_COMPAT, X32_BIT, X32_MASK, Abi
from probekit.patch.edits import TextMemory
from probekit.target.api import Regs

__all__ = ("STOPPED_FACTS", "VcpuWorld", "kernel_gs_base")

_ARGS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_MASK = (1 << 64) - 1
_KERNEL = 1 << 63
_MAX_GENERATIONS = 512

STOPPED_FACTS = frozenset(
    (
        *("caller", "cpu", "curabi", "curthread", "errno", "execname", "gid", "percpu_offset", "pid", "ppid", "tid"),
        *("cwd", "root", "stackdepth", "timestamp", "uid", "walltimestamp"),
    )
)
"""The built-ins about a task that the stop engine has. Both clocks are the host's; the guest's stand still."""

_CLOCKS = {"timestamp": time.monotonic_ns, "walltimestamp": time.time_ns}


def kernel_gs_base(regs: Regs) -> int:
    """Return the base of the kernel's per-CPU memory, before or after ``swapgs``."""
    base = regs["gs_base"]
    return base if base & _KERNEL else regs.values.get("k_gs_base", base)


def _credential(task: TaskOffsets, name: str) -> int | None:
    return task.uid if name == "uid" else task.gid


class VcpuWorld:
    """Supplies arguments and built-ins of a firing on a stopped vCPU."""

    def __init__(
        self,
        regs: Regs,
        text: TextMemory,
        facts: GuestFacts,
        arg: Callable[[int], int] | None = None,
        returned: int = 0,
        stacks: GuestStacks | None = None,
        with_current: bool = False,
    ) -> None:
        """Use the vCPU's registers, and guest memory while the guest is stopped.

        ``arg``: returns the probe's arguments; None to take them by the System V ABI, at a function's entry.
        ``returned``: the function's result, at its return. ``stacks``: finds callers; None without ``stack()``.
        ``with_current``: whether ``stack()`` begins with the function that runs; otherwise it begins with its caller.
        """
        self._returned = returned
        self._stacks = stacks
        self._with_current = with_current
        self._regs = regs
        self._text = text
        self._task = facts.task
        self._paths = facts.kernel.paths
        self._entry = facts.kernel.syscalls
        self._arg = arg or self._abi

    def arg(self, index: int) -> int:
        """Return argN."""
        return self._arg(index)

    def fact(self, name: str) -> Value:
        """Return a built-in variable about the task that runs on this vCPU, from guest memory.

        Raises :class:`UnsupportedError` for a built-in that the stop engine or this kernel does not have,
        :class:`GuestError` when guest memory cannot be read.
        """
        if name in _CLOCKS:
            return _CLOCKS[name]()
        if name == "errno":
            error = -self._returned & 0xFFFFFFFF
            return error if error <= MAX_ERRNO else 0
        if name == "stackdepth":
            return len(self.stack(MAX_STACK_DEPTH)) // 8
        base = kernel_gs_base(self._regs)
        if name == "percpu_offset":
            return base
        if name == "caller":
            return self._word(self._regs["rsp"], 8)  # at an entry, and where the function returns
        task = self._task
        if task is None:
            raise UnsupportedError(f"{name} needs the kernel's type information", feature=name)
        if name == "cpu":
            return self._word(base + task.cpu, 4)
        current = self._word(base + task.current, 8)
        match name:
            case "curthread":
                return current
            case "pid":
                return self._word(current + task.tgid, 4)
            case "tid":
                return self._word(current + task.pid, 4)
            case "curabi":
                if task.status is None:
                    raise UnsupportedError(
                        "curabi needs the kernel's type information (thread_info.status)", feature=name
                    )
                return ABI_NAMES[self._way_in(self._word(current + task.status, 4), base)]
            case "execname":
                return self._bytes(current + task.comm, 16).split(b"\0", 1)[0]
            case "cwd" | "root" if self._paths is not None:
                return self._directory(current, name, self._paths)
            case "ppid" if task.parent is not None:
                return self._word(self._word(current + task.parent, 8) + task.tgid, 4)
            case "uid" | "gid" if task.cred is not None and (where := _credential(task, name)) is not None:
                return self._word(self._word(current + task.cred, 8) + where, 4)
            case _:
                raise UnsupportedError(f"{name} is not implemented in the stop engine", feature=name)

    def _way_in(self, status: int, base: int) -> Abi:
        """Return how the task has entered the kernel for its system call. ``base``: of the per-CPU memory."""
        entry = self._entry
        if status & TS_COMPAT:
            return "32-bit"
        if not entry.x32 or entry.stack_top is None:
            return "64-bit"
        number = self._word(self._word(base + entry.stack_top, 8) + CALL_NUMBER, 4)
        return "x32" if number & X32_MASK == X32_BIT else "64-bit"

    def _directory(self, current: int, name: str, paths: PathOffsets) -> bytes:
        """Return the path of a directory of the task, seen from its root. ``root`` itself is seen from the system's.

        The path is empty for a task that is exiting.
        """
        files = self._word(current + paths.fs, 8)
        if not files:
            return b""

        def path_at(offset: int) -> MountedDentry:
            path = files + offset
            return self._word(path + paths.path_mount, 8), self._word(path + paths.path_dentry, 8)

        root = path_at(paths.root)
        if name == "root":
            return path_text(self._bytes, paths, root, (0, 0))
        return path_text(self._bytes, paths, path_at(paths.cwd), root)

    def stack(self, frames: int) -> bytes:
        """Return the addresses of callers, 8 bytes each. Raises :class:`UnsupportedError` without unwind tables."""
        if self._stacks is None:
            raise UnsupportedError("stack() needs the kernel's unwind tables (ORC)", feature="stack")
        found = self._stacks.frames(self._regs, frames, skip=0 if self._with_current else 1)
        return b"".join(addr.to_bytes(8, "little") for addr in found)

    def thread(self) -> int:
        """Return the address of the task that runs here; 0 without the kernel's types."""
        if self._task is None:
            return 0
        data = self._text.read_many([(kernel_gs_base(self._regs) + self._task.current & _MASK, 8)])[0]
        return int.from_bytes(data or b"", "little")

    def progenyof(self, pid: int) -> bool:
        """Return whether ``pid`` is the task's process, or one that started it.

        Looks at 512 generations at most. Raises :class:`UnsupportedError` without the kernel's types.
        """
        task = self._task
        if task is None or task.parent is None:
            raise UnsupportedError("progenyof() needs the kernel's type information", feature="progenyof")
        current = self.thread()
        for _ in range(_MAX_GENERATIONS):
            if self._word(current + task.tgid, 4) == pid & 0xFFFFFFFF:
                return True
            parent = self._word(current + task.parent, 8)
            if parent == current:
                break
            current = parent
        return False

    def _abi(self, index: int) -> int:
        if index < len(_ARGS):
            return self._regs[_ARGS[index]]
        return self._word(self._regs["rsp"] + 8 + 8 * (index - len(_ARGS)), 8)

    def _bytes(self, addr: int, size: int) -> bytes:
        data = self._text.read_many([(addr & _MASK, size)])[0]
        if data is None:
            raise GuestError(f"the guest's memory at {addr & _MASK:#x} cannot be read")
        return data

    def _word(self, addr: int, size: int) -> int:
        return int.from_bytes(self._bytes(addr, size), "little")
