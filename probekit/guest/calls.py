"""Describe a guest call: the task that it borrows, and what it changes in the kernel for us.

The journal keeps both. A recovery reads there what a call was for, so a purpose is one
of the types below with its operands, and never a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from probekit.records import record

__all__ = (
    "GENERAL_REGISTERS",
    "LIST_ENTRY_KINDS",
    "MEMORY_KINDS",
    "AddListEntry",
    "Allocate",
    "CallPurpose",
    "Free",
    "GetModule",
    "GuestCall",
    "ListEntryKind",
    "MemoryKind",
    "OtherCall",
    "PutModule",
    "RemoveListEntry",
    "is_pointer",
)

MemoryKind = Literal["exec", "data", "percpu", "grace"]
ListEntryKind = Literal["die_notifier", "bpf_ksym"]
MEMORY_KINDS: Mapping[str, MemoryKind] = {"exec": "exec", "data": "data", "percpu": "percpu", "grace": "grace"}
LIST_ENTRY_KINDS: Mapping[str, ListEntryKind] = {"die_notifier": "die_notifier", "bpf_ksym": "bpf_ksym"}
"""Each kind by its name, for names that were read from somewhere."""

GENERAL_REGISTERS: tuple[str, ...] = tuple(
    "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags".split()
)
"""What belongs to a task. Segment and control registers belong to the vCPU and are never copied."""

_ERR_MIN = (1 << 64) - 4095  # MAX_ERRNO, include/linux/err.h


@record
class Allocate:
    """The call returns new memory, or NULL or an error pointer."""

    kind: MemoryKind
    size: int
    """Bytes."""


@record
class Free:
    """The call frees memory of ours."""

    addr: int
    """As the allocation returned it."""


@record
class GetModule:
    """The call takes a reference to a module; its lowest byte is 0 when the kernel refused."""

    module: int
    """Address of its ``struct module``."""


@record
class PutModule:
    """The call gives a reference to a module back."""

    module: int
    """Address of its ``struct module``."""


@record
class AddListEntry:
    """The call puts a structure of ours on a list of the kernel's. The journal has the registration before."""

    kind: ListEntryKind
    addr: int


@record
class RemoveListEntry:
    """The call takes a structure of ours off its list."""

    kind: ListEntryKind
    addr: int


@record
class OtherCall:
    """The call changes nothing that a recovery would have to know."""


CallPurpose = Allocate | Free | GetModule | PutModule | AddListEntry | RemoveListEntry | OtherCall


@record
class GuestCall:
    """A call that borrows a guest task, with everything that is needed to give the task back."""

    vcpu: int
    """The vCPU on which the task was stopped."""
    regs: Mapping[str, int]
    """The task's own value of each of :data:`GENERAL_REGISTERS`."""
    return_addr: int
    """Where the call returns to."""
    rsp: int
    """The stack pointer at that moment. It tells this call from every other one that has not returned."""
    purpose: CallPurpose


def is_pointer(value: int) -> bool:
    """Return whether a returned value is an address: neither NULL nor an error pointer."""
    return 0 < value < _ERR_MIN
