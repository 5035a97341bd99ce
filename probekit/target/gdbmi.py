"""The same contract through gdb: slower, but it reaches whatever gdb's ``target remote`` reaches.

A gdb *thread* number is not the stub's: the map is read from the target ids
(``Thread 1.2`` is the stub's vCPU 2). Differences from the direct transport:

- :class:`~probekit.target.api.Regs` carries no ``raw`` bytes, so setting
  registers sets the named ones only (no x87, no SSE);
- gdb does not report a write watchpoint whose value stays the same;
- there is no physical memory mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, assert_never

from probekit.errors import (
    MemoryAccessError,
    ProtocolError,
    TargetError,
    TargetLost,
    TargetTimeout,
    UnsupportedError,
)
from probekit.target.api import BreakKind, Regs, StopReason, Vcpu
from probekit.target.gdbproc import GdbProcess, Record
from probekit.target.memory import plan_reads, plan_writes
from probekit.target.registers import CORE, SYSTEM

__all__ = ("GdbTarget",)

_REQUEST_SECONDS: Final = 10.0
_STEP_SECONDS: Final = 10.0
_READ_SIZE: Final = 0x4000
_WRITE_SIZE: Final = 0x1000
_TARGET_ID: Final = re.compile(r"Thread (?:0x)?(?:([0-9a-fA-F]+)\.)?([0-9a-fA-F]+)")
_WATCHES: Final = {
    "watchpoint-trigger": "wpt",
    "read-watchpoint-trigger": "hw-rwpt",
    "access-watchpoint-trigger": "hw-awpt",
}
_SIGNALS: Final = {"SIGTRAP": 5, "SIGINT": 2, "SIGQUIT": 3, "SIGABRT": 6, "0": 2}
_WORDS: Final = {1: "char", 2: "short", 4: "int", 8: "long"}

_BreakKey = tuple[BreakKind, int, int]


class GdbTarget:
    """A :class:`~probekit.target.api.Target` driven through a gdb process. Not thread-safe."""

    def __init__(self, address: str, *, name: str, timeout: float = 5.0) -> None:
        """``address``: what gdb's ``target remote`` takes, or ``unix:PATH``, or ``extended-remote ADDRESS``.

        Raises :class:`UnsupportedError` without gdb, :class:`TargetError` when it cannot connect.
        """
        self._name = name
        self._running = False
        self._closed = False
        self._threads: dict[Vcpu, int] = {}
        self._breaks: dict[_BreakKey, str] = {}
        self._numbers: dict[str, int] = {}
        self._memory_vcpu: Vcpu | None = None
        self._selected: Vcpu | None = None
        self._gdb = GdbProcess(timeout=_REQUEST_SECONDS)
        try:
            self._connect(address, timeout)
        except BaseException:
            self._gdb.close()
            raise

    def _connect(self, address: str, timeout: float) -> None:
        self._gdb.prepare()
        kind, _, rest = address.partition(" ")
        if kind not in ("remote", "extended-remote"):
            kind, rest = "remote", address
        rest = rest.strip().removeprefix("unix:")
        # gdb retries a refused connection by itself; the stub's silence is what it would wait for longest.
        self._gdb.console(f"set tcp connect-timeout {max(1, int(timeout))}")
        self._gdb.console(f"set remotetimeout {max(1, int(timeout))}")
        try:
            self._gdb.command(f"-target-select {kind} {rest}", timeout=timeout + 1)
        except TargetTimeout as problem:
            raise TargetTimeout(
                f"{self._name}: no gdb stub answers within {timeout:g} s", seconds=timeout, hint=problem.hint
            ) from None
        self._gdb.console("set remotetimeout 10")
        stop = self._gdb.next_stop(1.0)
        names = self._gdb.command("-data-list-register-names")["register-names"]
        self._numbers = {str(n): i for i, n in enumerate(names) if n in CORE or n in SYSTEM}
        if not set(CORE) <= self._numbers.keys():
            raise ProtocolError(f"{self._name}: gdb does not see an x86-64 machine there")
        self._read_threads()
        self._last = self._reason({} if stop is None else stop)

    @property
    def name(self) -> str:
        """The target as the user gave it."""
        return self._name

    @property
    def running(self) -> bool:
        """True from a resume until its stop has been read."""
        return self._running

    @property
    def last_stop(self) -> StopReason:
        """Why the machine stopped most recently."""
        return self._last

    @property
    def gdb_pid(self) -> int:
        """The gdb process behind this target."""
        return self._gdb.pid

    # Memory

    def use_memory_of(self, vcpu: Vcpu | None) -> None:
        """Read and write through the page tables of ``vcpu``; None: of the vCPU that stopped last (the default)."""
        self._memory_vcpu = vcpu

    def read(self, addr: int, size: int) -> bytes:
        """See :meth:`Target.read`."""
        data = self.read_many([(addr, size)])[0]
        if data is None:
            raise MemoryAccessError(
                f"guest memory {addr:#x} ({size} bytes) cannot be read",
                addr=addr,
                size=size,
                hint="not mapped in the address space of the vCPU looked through",
            )
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See :meth:`Target.read_many`."""
        self._look()
        plan = plan_reads(ranges, _READ_SIZE)
        records = self._gdb.commands([f"-data-read-memory-bytes {addr:#x} {size}" for addr, size in plan.pieces])
        results: list[bytes | None] = []
        index = 0
        for count in plan.counts:
            parts = [_memory(records[i], *plan.pieces[i]) for i in range(index, index + count)]
            whole = [part for part in parts if part is not None]
            results.append(b"".join(whole) if len(whole) == count else None)
            index += count
        return results

    def write(self, addr: int, data: bytes) -> None:
        """See :meth:`Target.write`."""
        self.write_many([(addr, data)])

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """See :meth:`Target.write_many`."""
        self._look()
        pieces = plan_writes(edits, _WRITE_SIZE)
        records = self._gdb.commands([f"-data-write-memory-bytes {addr:#x} {data.hex()}" for addr, data in pieces])
        for (addr, data), record in zip(pieces, records, strict=True):
            if record["message"] == "error":
                raise MemoryAccessError(
                    f"guest memory {addr:#x} ({len(data)} bytes) cannot be written: {record['payload'].get('msg', '')}",
                    addr=addr,
                    size=len(data),
                )

    # vCPUs and registers

    def vcpus(self) -> tuple[Vcpu, ...]:
        """See :meth:`Target.vcpus`."""
        self._need_stopped()
        self._read_threads()
        return tuple(self._threads)

    def regs(self, vcpu: Vcpu) -> Regs:
        """See :meth:`Target.regs`. ``raw`` is empty."""
        self._need_stopped()
        names = {number: name for name, number in self._numbers.items()}
        wanted = " ".join(str(number) for number in names)
        answer = self._gdb.command(f"-data-list-register-values --thread {self._thread(vcpu)} x {wanted}")
        values = {names[int(item["number"])]: _number(item["value"]) for item in answer["register-values"]}
        if not set(CORE) <= values.keys():
            raise ProtocolError(f"{self._name}: gdb left registers out")
        return Regs(values=values, raw=b"")

    def set_regs(self, vcpu: Vcpu, regs: Regs) -> None:
        """See :meth:`Target.set_regs`. Only named registers that differ from the vCPU's are written."""
        now = self.regs(vcpu)
        self._select(vcpu)
        for name, value in regs.values.items():
            if name in now.values and now[name] != value:
                self._gdb.command(f"-gdb-set var ${name} = {value:#x}")

    # Running

    def resume(self) -> None:
        """See :meth:`Target.resume`. gdb steps over a breakpoint at the place of the last stop."""
        self._need_stopped()
        self._select(self._last.vcpu)
        self._go("-exec-continue")

    def step(self, vcpu: Vcpu) -> StopReason:
        """See :meth:`Target.step`. Raises :class:`TargetTimeout` when the instruction does not end."""
        self._need_stopped()
        self._gdb.command("-gdb-set scheduler-locking on")
        try:
            self._go(f"-exec-step-instruction --thread {self._thread(vcpu)}")
            reason = self.wait(_STEP_SECONDS)
            if reason is None:
                self.stop()
                raise TargetTimeout(f"{self._name}: a step of vCPU {vcpu} did not end", seconds=_STEP_SECONDS)
        finally:
            if not self._running and not self._closed:
                self._gdb.command("-gdb-set scheduler-locking off")
        return reason

    def wait(self, timeout: float) -> StopReason | None:
        """See :meth:`Target.wait`."""
        if self._running:
            try:
                stop = self._gdb.next_stop(timeout)
            except TargetLost:
                self._close()
                raise
            if stop is None:
                return None
            self._running = False
            self._selected = None
            self._last = self._reason(stop)
            if self._last.kind == "exited":
                self._close()
        return self._last

    def stop(self, timeout: float = 10.0) -> StopReason:
        """See :meth:`Target.stop`. On a stopped machine: the last reason."""
        self._need_open()
        if not self._running:
            return self._last
        self._gdb.command("-exec-interrupt --all")
        reason = self.wait(timeout)
        if reason is None:
            raise TargetTimeout(f"{self._name}: the machine did not stop within {timeout:g} s", seconds=timeout)
        return reason

    def _go(self, command: str) -> None:
        self._gdb.forget_stops()
        self._running = True
        self._selected = None
        try:
            self._gdb.command(command)
        except TargetTimeout:
            raise
        except TargetError:
            self._running = False
            raise

    def _reason(self, stop: Record) -> StopReason:
        why = str(stop.get("reason", ""))
        raw = str(stop)[:512]
        if why.startswith("exited"):
            return StopReason("exited", 0, 0, raw)
        thread = str(stop.get("thread-id", ""))
        vcpu = next((v for v, t in self._threads.items() if str(t) == thread), self._first())
        if why in _WATCHES:
            number = str(stop.get(_WATCHES[why], {}).get("number", ""))
            addr = next((addr for (_, addr, _), n in self._breaks.items() if n == number), None)
            return StopReason("watch", 5, vcpu, raw, watch_addr=addr)
        signal = 5
        if why == "signal-received":
            signal = _SIGNALS.get(str(stop.get("signal-name", "")), 0)
        elif not why:
            signal = 2
        return StopReason("breakpoint" if signal == 5 else "interrupt", signal, vcpu, raw)

    # Breakpoints

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.set_breakpoint`. Setting one twice is the same as once."""
        self._need_stopped()
        key = (kind, addr, size)
        if key in self._breaks:
            return
        match kind:
            case "software":
                answer = self._gdb.command(f"-break-insert *{addr:#x}")["bkpt"]
            case "hardware":
                answer = self._gdb.command(f"-break-insert -h *{addr:#x}")["bkpt"]
            case "watch_write" | "watch_read" | "watch_access":
                if size not in _WORDS:
                    raise UnsupportedError(f"no watchpoint of {size} bytes", feature="watchpoint size")
                flag = {"watch_write": "", "watch_read": "-r ", "watch_access": "-a "}[kind]
                found = self._gdb.command(f'-break-watch {flag}"*(unsigned {_WORDS[size]} *) {addr:#x}"')
                answer = next(iter(found.values()))
            case _ as never:
                assert_never(never)
        self._breaks[key] = str(answer["number"])

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.clear_breakpoint`. Clearing one that is not set does nothing."""
        self._need_stopped()
        number = self._breaks.get((kind, addr, size))
        if number is not None:
            self._gdb.command(f"-break-delete {number}")
            del self._breaks[(kind, addr, size)]

    # The monitor, and the end

    def monitor(self, command: str) -> str:
        """See :meth:`Target.monitor`. A command that resumes the machine must not be given."""
        self._need_stopped()
        try:
            text = self._gdb.console(f"monitor {command}")
        except TargetLost:
            raise
        except TargetError as problem:
            if "not supported" in problem.message:
                raise UnsupportedError(f"{self._name}: the stub has no monitor", feature="monitor") from problem
            raise
        return text.replace("\r\n", "\n")

    def detach(self) -> None:
        """See :meth:`Target.detach`. Ends gdb."""
        if self._closed:
            return
        try:
            if self._running:
                self.stop()
            if not self._closed:
                for key in list(self._breaks):
                    self.clear_breakpoint(key[1], key[0], key[2])
                self._gdb.command("-target-detach")
        except TargetLost:
            pass  # the machine is gone, and its breakpoints with it
        finally:
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._running = False
        self._gdb.close()

    # Helpers

    def _need_open(self) -> None:
        if self._closed:
            raise TargetLost(f"{self._name}: detached, or the virtual machine has ended")

    def _need_stopped(self) -> None:
        self._need_open()
        if self._running:
            raise TargetError(f"{self._name}: the machine is running", hint="stop it first")

    def _read_threads(self) -> None:
        threads: dict[Vcpu, int] = {}
        for item in self._gdb.command("-thread-info")["threads"]:
            match = _TARGET_ID.match(item["target-id"])
            number = int(item["id"])
            threads[int(match[2], 16) if match else number] = number
        if not threads:
            raise ProtocolError(f"{self._name}: gdb sees no vCPU there")
        self._threads = threads

    def _first(self) -> Vcpu:
        return next(iter(self._threads), 1)

    def _thread(self, vcpu: Vcpu) -> int:
        if vcpu not in self._threads:
            self._read_threads()
        if vcpu not in self._threads:
            raise TargetError(f"{self._name}: no vCPU {vcpu}; there are {sorted(self._threads)}")
        return self._threads[vcpu]

    def _select(self, vcpu: Vcpu) -> None:
        if vcpu != self._selected:
            self._gdb.command(f"-thread-select {self._thread(vcpu)}")
            self._selected = vcpu

    def _look(self) -> None:
        self._need_stopped()
        self._select(self._last.vcpu if self._memory_vcpu is None else self._memory_vcpu)


def _memory(record: Record, addr: int, size: int) -> bytes | None:
    """The bytes of one read, or None unless all of them are there."""
    if record["message"] == "error":
        return None
    blocks: Any = record["payload"]["memory"]
    if len(blocks) != 1 or int(blocks[0]["begin"], 16) != addr:
        return None
    data = bytes.fromhex(blocks[0]["contents"])
    return data if len(data) == size else None


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as problem:
        raise ProtocolError("gdb gave a register that is no number", reply=text.encode()) from problem
