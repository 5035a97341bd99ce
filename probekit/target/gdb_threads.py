"""Map the stub's vCPUs to gdb's threads, and read and write their registers.

A gdb *thread* number is not the stub's: the map is read from the target ids
(``Thread 1.2`` is the stub's vCPU 2).
"""

from __future__ import annotations

import re
from typing import Final

from probekit.errors import ProtocolError, TargetError
from probekit.target.api import Regs, Vcpu
from probekit.target.gdb_process import GdbProcess
from probekit.target.register_layout import CORE, SYSTEM

__all__ = ("GdbThreads",)

_TARGET_ID: Final = re.compile(r"Thread (?:0x)?(?:([0-9a-fA-F]+)\.)?([0-9a-fA-F]+)")


class GdbThreads:
    """The threads of one gdb. ``name``: the target's, for messages."""

    def __init__(self, gdb: GdbProcess, name: str) -> None:
        self._gdb = gdb
        self._name = name
        self._threads: dict[Vcpu, int] = {}
        self._selected: Vcpu | None = None
        self._register_names: dict[int, str] = {}

    def load(self) -> None:
        """Read register names and threads. Raises :class:`ProtocolError` when this is no x86-64 machine."""
        names = self._gdb.command("-data-list-register-names")["register-names"]
        self._register_names = {i: str(n) for i, n in enumerate(names) if n in CORE or n in SYSTEM}
        if not set(CORE) <= set(self._register_names.values()):
            raise ProtocolError(f"{self._name}: gdb does not see an x86-64 machine there")
        self.vcpus()

    def vcpus(self) -> tuple[Vcpu, ...]:
        """Read the vCPUs anew. Raises :class:`ProtocolError` when gdb sees none."""
        threads: dict[Vcpu, int] = {}
        for item in self._gdb.command("-thread-info")["threads"]:
            match = _TARGET_ID.match(item["target-id"])
            number = int(item["id"])
            threads[int(match[2], 16) if match else number] = number
        if not threads:
            raise ProtocolError(f"{self._name}: gdb sees no vCPU there")
        self._threads = threads
        return tuple(threads)

    def vcpu_of(self, thread: str) -> Vcpu:
        """Return the vCPU of a thread as MI writes it; the first vCPU for an unknown one."""
        first = next(iter(self._threads), 1)
        return next((vcpu for vcpu, number in self._threads.items() if str(number) == thread), first)

    def thread(self, vcpu: Vcpu) -> int:
        """Return the thread of a vCPU. Raises :class:`TargetError` when there is no such vCPU."""
        if vcpu not in self._threads:
            self.vcpus()
        if vcpu not in self._threads:
            raise TargetError(f"{self._name}: no vCPU {vcpu}; there are {sorted(self._threads)}")
        return self._threads[vcpu]

    def select(self, vcpu: Vcpu) -> None:
        """Make gdb look through ``vcpu``."""
        if vcpu != self._selected:
            self._gdb.command(f"-thread-select {self.thread(vcpu)}")
            self._selected = vcpu

    def deselect(self) -> None:
        """Note that gdb may have selected another thread."""
        self._selected = None

    def read_registers(self, vcpu: Vcpu) -> Regs:
        """See :meth:`probekit.target.api.Target.regs`. ``raw`` is empty."""
        names = self._register_names
        wanted = " ".join(str(number) for number in names)
        answer = self._gdb.command(f"-data-list-register-values --thread {self.thread(vcpu)} x {wanted}")
        values = {names[int(item["number"])]: _number(item["value"]) for item in answer["register-values"]}
        if not set(CORE) <= values.keys():
            raise ProtocolError(f"{self._name}: gdb left registers out")
        return Regs(values=values, raw=b"")

    def write_registers(self, vcpu: Vcpu, regs: Regs) -> None:
        """See :meth:`probekit.target.api.Target.set_regs`. Only named registers that differ are written."""
        now = self.read_registers(vcpu)
        self.select(vcpu)
        for name, value in regs.values.items():
            if name in now.values and now[name] != value:
                self._gdb.command(f"-gdb-set var ${name} = {value:#x}")


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as problem:
        raise ProtocolError("gdb gave a register that is not a number", reply=text.encode()) from problem
