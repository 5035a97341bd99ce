"""Change more than one byte of an instruction while processors run: cross-modifying code with breakpoint bypass.

A processor may fetch the bytes of an instruction one by one, and early: it may
execute a mixture of old and new bytes (Intel SDM volume 3, section 9.1.3,
"Handling Self- and Cross-Modifying Code"). So the instruction is made
unreachable first::

    cc xx    INT3 over the first byte      every processor serialises
    cc yy    the tail                      every processor serialises
    zz yy    the first byte                every processor serialises
                                           every processor has left the handler of the INT3

While the INT3 stands, a processor that meets it is *bypassed*: our trap handler in the
guest (:mod:`probekit.codegen.notifier`) sends it to code that does what the old or
the new bytes do. So every order of the processors' steps is right:
tests/patch/test_crossmodify.py tries all of them, and shows that no stage can be left out.

To make every processor serialise, all vCPUs are stopped and resumed: they then drop
the instructions that they had fetched. A vCPU has left the handler when it was seen
once, after the last INT3 was gone, in user mode or with interrupts on: the kernel
keeps interrupts off from the trap to its return (exc_int3() runs in NMI context).

A window is one instruction and, after it, bytes that are never executed, in
its old form and in its new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from probekit.errors import ConflictError, GuestError, MemoryAccessError
from probekit.patch.edits import Edit, EditSet, TextMemory
from probekit.target.api import Regs, Vcpu

__all__ = (
    "INT3",
    "Processors",
    "Stage",
    "change_in_stages",
    "journal_batches",
    "stages",
    "wait_for_handler_exit",
)

INT3 = b"\xcc"  # int3
"""The one-byte breakpoint."""
_EFLAGS_IF = 0x200
_MAX_POLLS = 2000
_POLL_SECONDS = 0.001

Wait = Literal["serialise", "leave"]
"""What to wait for.

- ``serialise``: every processor has serialised
- ``leave``: every processor has left the handler of an INT3 that is gone
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the change."""

    writes: tuple[tuple[int, bytes], ...]
    """``(address, bytes)`` pairs, to be written in any order."""
    waits: tuple[Wait, ...]
    """What to wait for after the last write."""


def stages(edits: Sequence[Edit]) -> tuple[Stage, ...]:
    """Return the stages in which all ``edits`` are made together. Every window must hold its old bytes.

    Raises :class:`ValueError` for an edit whose old and new bytes differ in number.
    """
    if any(len(edit.old) != len(edit.new) or not edit.old for edit in edits):
        raise ValueError("an edit must have equally many old and new bytes, and at least one")
    return (
        Stage(tuple((edit.addr, INT3) for edit in edits), ("serialise",)),
        Stage(tuple((edit.addr + 1, edit.new[1:]) for edit in edits if len(edit.new) > 1), ("serialise",)),
        Stage(tuple((edit.addr, edit.new[:1]) for edit in edits), ("serialise", "leave")),
    )


def journal_batches(edits: Sequence[Edit]) -> tuple[tuple[Edit, ...], ...]:
    """Return what the stages change, one batch of edits for each, for the undo journal.

    Whichever of them were made, undoing the batches newest first restores the old bytes.
    """
    return (
        tuple(Edit(edit.addr, edit.old[:1], INT3) for edit in edits),
        tuple(Edit(edit.addr + 1, edit.old[1:], edit.new[1:]) for edit in edits if len(edit.old) > 1),
        tuple(Edit(edit.addr, INT3, edit.new[:1]) for edit in edits),
    )


class Processors(Protocol):
    """The vCPUs of a stopped machine."""

    def vcpus(self) -> tuple[Vcpu, ...]: ...

    def regs(self, vcpu: Vcpu) -> Regs: ...


def change_in_stages(
    text: TextMemory,
    edits: Iterable[Edit],
    *,
    paused: Callable[[], AbstractContextManager[None]],
    between: Callable[[], None] = lambda: None,
) -> tuple[Edit, ...]:
    """Make ``edits`` in stages while the machine runs, and skip those whose new bytes are there already.

    ``paused``: stops the machine within the context and lets it run after it.
    ``between``: called after each stage, while the machine runs.

    Before the call the bypass of every window must be in place, and :func:`journal_batches` in the journal. The bypass
    must stay until :func:`wait_for_handler_exit` has returned.

    Returns the edits that were made. Raises :class:`ConflictError` before anything is written when a window holds
    neither its old nor its new bytes; after any later failure the windows hold their old bytes again.
    """
    ready = EditSet(edits)
    made: tuple[Edit, ...] | None = None
    todo: list[Stage] = []
    try:
        while made is None or todo:
            with paused():
                if made is None:  # the windows are checked in the pause in which the first byte changes
                    made = _unmade_edits(ready, ready.read(text))
                    todo = list(stages(made)) if made else []
                if todo:
                    _write(text, todo.pop(0))
            between()
    except BaseException:
        if made:
            with paused():
                _restore(text, made)
        raise
    return made


def _unmade_edits(ready: EditSet, found: Sequence[bytes | None]) -> tuple[Edit, ...]:
    """Return the edits whose windows hold their old bytes.

    Raises :class:`ConflictError` for a window that holds neither old nor new bytes, :class:`MemoryAccessError`.
    """
    made: list[Edit] = []
    for edit, have in zip(ready.edits, found, strict=True):
        if have is None:
            raise MemoryAccessError(f"cannot read {edit.addr:#x}", addr=edit.addr, size=len(edit.old))
        if have == edit.old != edit.new:
            made.append(edit)
        elif have != edit.new:
            message = f"{edit.addr:#x} holds {have.hex(' ')}, not {edit.old.hex(' ')}"
            raise ConflictError(message, addr=edit.addr, expected=edit.old, found=have)
    return tuple(made)


def _write(text: TextMemory, stage: Stage) -> None:
    """Make a stage's writes and read them back. Raises :class:`ConflictError`."""
    text.write_many(stage.writes)
    written = EditSet(Edit(addr, data, data) for addr, data in stage.writes)
    for edit, have in zip(written.edits, written.read(text), strict=True):
        if have != edit.new:
            raise ConflictError(
                f"{edit.addr:#x} does not read back", addr=edit.addr, expected=edit.new, found=have or b""
            )


def _restore(text: TextMemory, edits: Sequence[Edit]) -> None:
    """Write the old bytes, whatever stage was reached. The machine is stopped."""
    text.write_many((edit.addr, edit.old) for edit in edits)


def wait_for_handler_exit(processors: Processors, paused: Callable[[], AbstractContextManager[None]]) -> None:
    """Wait until every vCPU was seen in user mode or with interrupts on, so outside of the INT3 handler.

    Raises :class:`GuestError` when that did not happen in about two seconds.
    """
    seen: set[Vcpu] = set()
    for _ in range(_MAX_POLLS):
        with paused():
            vcpus = processors.vcpus()
            seen.update(vcpu for vcpu in vcpus if vcpu not in seen and _is_outside(processors.regs(vcpu)))
        if seen.issuperset(vcpus):
            return
        time.sleep(_POLL_SECONDS)
    raise GuestError("a vCPU was never seen outside of its trap handlers", hint="it runs with interrupts off")


def _is_outside(regs: Regs) -> bool:
    """Tell whether a vCPU with these registers cannot be in the handler of an INT3."""
    return regs.in_user_mode or bool(regs["eflags"] & _EFLAGS_IF)
