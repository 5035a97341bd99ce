"""Change more than one byte of an instruction while processors run: cross-modifying code with breakpoint bypass.

A processor may fetch the bytes of an instruction one by one, and early: it may
execute a mixture of old and new bytes (Intel SDM volume 3, section 9.1.3,
"Handling Self- and Cross-Modifying Code"). So the instruction is made
unreachable first::

    cc xx    INT3 over the first byte      every processor serialises
    cc yy    the tail                      every processor serialises
    zz yy    the first byte                every processor serialises
                                           no processor is left in the handler of the INT3

While the INT3 stands, a processor that meets it is *bypassed*: our trap handler in the
guest (:mod:`probekit.codegen.notifier`) sends it to a place that does
what the old or the new bytes do. Every interleaving is right, not only those of a
stopped machine: tests/patch/test_crossmodify.py tries all of them, and shows
that no step can be left out.

Over a gdb stub all vCPUs are stopped and resumed so that every processor serialises:
that drops all that they had fetched. A vCPU has left the handler when
it was seen once, after the last INT3 was gone, in user mode or with interrupts
on. The kernel keeps interrupts off from the trap to its return (exc_int3(), which is NMI
context), so nothing else needs to be known of the handler.

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
_EFLAGS_IF = 0x200
_MAX_POLLS = 2000
_POLL_SECONDS = 0.001

Wait = Literal["serialise", "leave"]
"""``serialise``: every processor has; ``leave``: no processor is in the handler of an INT3 that is gone."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the protocol."""

    writes: tuple[tuple[int, bytes], ...]
    """``(address, bytes)``; they may be made in any order and at any time."""
    waits: tuple[Wait, ...]
    """What must be waited for after the last write."""


def stages(edits: Sequence[Edit]) -> tuple[Stage, ...]:
    """Return the stages in which windows change together. Every window must hold its old bytes.

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
    """Return what the stages change, as batches for the undo journal.

    Whichever of them were made, undoing them newest first restores the old bytes.
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
    """Make all ``edits`` in stages while the machine runs, without those that are made already.

    ``paused``: the machine is stopped within the context and runs after it; ``between``: is called after each stage,
    while the machine runs. Before the call the bypass of every window must be in place, and :func:`journal_batches`
    in the journal. The bypass must stay until :func:`wait_for_handler_exit` has returned.
    Returns the edits that were made. Raises :class:`ConflictError` before anything is written when a window holds
    neither form; after any later failure the windows hold their old bytes again.
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
    """Return the edits whose windows hold their old bytes. Raises for a window that holds neither form."""
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
    text.write_many(stage.writes)
    written = EditSet(Edit(addr, data, data) for addr, data in stage.writes)
    for edit, have in zip(written.edits, written.read(text), strict=True):
        if have != edit.new:
            raise ConflictError(
                f"{edit.addr:#x} does not read back", addr=edit.addr, expected=edit.new, found=have or b""
            )


def _restore(text: TextMemory, edits: Sequence[Edit]) -> None:
    """Write the old bytes at any stage. The machine is stopped, and no vCPU is inside of an instruction."""
    text.write_many((edit.addr, edit.old) for edit in edits)


def wait_for_handler_exit(processors: Processors, paused: Callable[[], AbstractContextManager[None]]) -> None:
    """Wait until every vCPU was seen where it cannot be in the handler of an INT3 that is gone.

    Raises :class:`GuestError` when one never was within about two seconds of polling.
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
    return regs.in_user_mode or bool(regs["eflags"] & _EFLAGS_IF)
