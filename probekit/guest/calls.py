"""Describe a guest call: the task that it borrows, and what it changes in the kernel for us.

The journal keeps both. A recovery reads there what a call was for, so a purpose is one
of the types below with its operands, and never a text.

A *list entry* is a structure of ours on one of the kernel's own lists: a die notifier or a
BPF symbol (:mod:`probekit.guest.trap_registration`).
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
"""What guest memory of ours is for; ``grace`` memory is written by the kernel until a wait for readers is over."""
ListEntryKind = Literal["die_notifier", "bpf_ksym"]
"""What a list entry is."""
MEMORY_KINDS: Mapping[str, MemoryKind] = {"exec": "exec", "data": "data", "percpu": "percpu", "grace": "grace"}
LIST_ENTRY_KINDS: Mapping[str, ListEntryKind] = {"die_notifier": "die_notifier", "bpf_ksym": "bpf_ksym"}
"""Each kind by its name, to check names from a journal."""

GENERAL_REGISTERS: tuple[str, ...] = tuple(
    "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags".split()
)
"""The registers of a task. Segment and control registers belong to the vCPU and are never copied."""

_ERR_MIN = (1 << 64) - 4095  # MAX_ERRNO, include/linux/err.h


@record
class Allocate:
    """The call returns new memory, or NULL or an error pointer."""

    kind: MemoryKind
    """What the memory is for."""
    size: int
    """Bytes."""


@record
class Free:
    """The call frees memory of ours."""

    addr: int
    """The address that the allocation returned."""


@record
class GetModule:
    """The call takes a reference to a module. The lowest byte of its result is 0 when the kernel refused."""

    module: int
    """Address of its ``struct module``."""


@record
class PutModule:
    """The call gives a reference to a module back."""

    module: int
    """Address of its ``struct module``."""


@record
class AddListEntry:
    """The call adds a list entry. The registration must be in the journal before."""

    kind: ListEntryKind
    """What the entry is."""
    addr: int
    """Address of our structure."""


@record
class RemoveListEntry:
    """The call removes a list entry."""

    kind: ListEntryKind
    """What the entry is."""
    addr: int
    """Address of our structure."""


@record
class OtherCall:
    """The call changes nothing that a recovery would have to know."""


CallPurpose = Allocate | Free | GetModule | PutModule | AddListEntry | RemoveListEntry | OtherCall
"""What a guest call changes in the kernel for us."""


@record
class GuestCall:
    """A call that borrows a guest task, with everything that is needed to give the task back."""

    vcpu: int
    """The vCPU on which the task was stopped."""
    regs: Mapping[str, int]
    """The task's own value of each of :data:`GENERAL_REGISTERS`."""
    return_addr: int
    """Address of the landing to which the call returns."""
    rsp: int
    """The stack pointer after the return. It tells this call from all others that have not returned."""
    purpose: CallPurpose
    """What the call changes in the kernel for us."""


def is_pointer(value: int) -> bool:
    """Return whether a returned value is an address: neither NULL nor an error pointer."""
    return 0 < value < _ERR_MIN
