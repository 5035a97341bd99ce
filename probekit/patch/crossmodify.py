"""Cross-modifying code with breakpoint bypass: more than one byte of an instruction changes while processors run.

A processor may fetch the bytes of an instruction one by one, and early: what it
executes can be put together of old and new ones (seed 001; Intel SDM volume 3,
"Handling Self- and Cross-Modifying Code"). So the instruction is made
unreachable first::

    cc xx    INT3 over the first byte      every processor serialises
    cc yy    the tail                      every processor serialises
    zz yy    the first byte                every processor serialises
                                           no processor is left in the handler of the INT3

While the INT3 stands, a processor that meets it is *bypassed*: the guest's own
trap handler (:mod:`probekit.codegen.notifier`) sends it to a place that does
what the old or the new bytes do. Any interleaving is right, not only those of a
stopped machine: tests/patch/test_crossmodify.py tries all of them, and shows
that no step can be left out.

Over a gdb stub "every processor serialises" is: all vCPUs are stopped and
resumed, which drops whatever they had fetched. A vCPU has left the handler when
it was seen once, after the last INT3 was gone, in user mode or with interrupts
on: the kernel keeps them off from the trap to its return (exc_int3(), and NMI
context all the while), so nothing else needs to be known of the handler.

A window is one instruction and, behind it, bytes that are never executed, in
its old form as in its new one.
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

__all__ = ("INT3", "Processors", "Stage", "change", "in_stages", "journal_batches", "leave", "stages")

INT3 = b"\xcc"  # int3
_IF = 0x200
_LOOKS = 2000
_LOOK_SECONDS = 0.001

Wait = Literal["serialise", "leave"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Writes that may come in any order and at any time, and what must be waited for behind the last of them."""

    writes: tuple[tuple[int, bytes], ...]
    waits: tuple[Wait, ...]


def stages(edits: Sequence[Edit]) -> tuple[Stage, ...]:
    """The protocol for windows that change together. Every window must hold its old bytes."""
    if any(len(edit.old) != len(edit.new) or not edit.old for edit in edits):
        raise ValueError("an edit's old and new bytes are equally many, and not none")
    return (
        Stage(tuple((edit.addr, INT3) for edit in edits), ("serialise",)),
        Stage(tuple((edit.addr + 1, edit.new[1:]) for edit in edits if len(edit.new) > 1), ("serialise",)),
        Stage(tuple((edit.addr, edit.new[:1]) for edit in edits), ("serialise", "leave")),
    )


def journal_batches(edits: Sequence[Edit]) -> tuple[tuple[Edit, ...], ...]:
    """What the stages change, as batches for the undo journal: undone newest first, any prefix of them is put right."""
    return (
        tuple(Edit(edit.addr, edit.old[:1], INT3) for edit in edits),
        tuple(Edit(edit.addr + 1, edit.old[1:], edit.new[1:]) for edit in edits if len(edit.old) > 1),
        tuple(Edit(edit.addr, INT3, edit.new[:1]) for edit in edits),
    )


class Processors(Protocol):
    """The vCPUs of a stopped machine."""

    def vcpus(self) -> tuple[Vcpu, ...]: ...

    def regs(self, vcpu: Vcpu) -> Regs: ...


def change(
    text: TextMemory,
    processors: Processors,
    edits: Iterable[Edit],
    *,
    paused: Callable[[], AbstractContextManager[None]],
    between: Callable[[], None] = lambda: None,
) -> tuple[Edit, ...]:
    """The whole protocol: :func:`in_stages`, then :func:`leave`. Returns the edits that were made."""
    try:
        made = in_stages(text, edits, paused=paused, between=between)
    except BaseException:
        leave(processors, paused)
        raise
    if made:
        leave(processors, paused)
    return made


def in_stages(
    text: TextMemory,
    edits: Iterable[Edit],
    *,
    paused: Callable[[], AbstractContextManager[None]],
    between: Callable[[], None] = lambda: None,
) -> tuple[Edit, ...]:
    """Make all ``edits`` in stages while the machine runs; those that stand already are passed over.

    ``paused``: the machine is stopped inside and runs behind; ``between``: called after each stage, while it runs.
    The bypass of every window is in place, and the journal has :func:`journal_batches`, before this is called; the
    bypass stays until :func:`leave` has returned.
    Returns the edits that were made. Raises :class:`ConflictError` before anything is written when a window holds
    neither form; after any later failure the windows hold their old bytes again.
    """
    ready = EditSet(edits)
    made: tuple[Edit, ...] | None = None
    todo: list[Stage] = []
    try:
        while made is None or todo:
            with paused():
                if made is None:  # the test of the state is inside the pause in which the first byte changes
                    made = _to_change(ready, ready.read(text))
                    todo = list(stages(made)) if made else []
                if todo:
                    _write(text, todo.pop(0))
            between()
    except BaseException:
        if made:
            with paused():
                _back(text, made)
        raise
    return made


def _to_change(ready: EditSet, found: Sequence[bytes | None]) -> tuple[Edit, ...]:
    """Those of the windows that hold their old bytes. Raises for one that holds neither form."""
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


def _back(text: TextMemory, edits: Sequence[Edit]) -> None:
    """The old bytes again, at whatever stage; nothing runs meanwhile, and nothing stands inside of one instruction."""
    text.write_many((edit.addr, edit.old) for edit in edits)


def leave(processors: Processors, paused: Callable[[], AbstractContextManager[None]]) -> None:
    """Wait until every vCPU was seen where it cannot be in the handler of an INT3 that is gone.

    Raises :class:`GuestError` when one never is.
    """
    seen: set[Vcpu] = set()
    for _ in range(_LOOKS):
        with paused():
            every = processors.vcpus()
            seen.update(vcpu for vcpu in every if vcpu not in seen and _outside(processors.regs(vcpu)))
        if seen.issuperset(every):
            return
        time.sleep(_LOOK_SECONDS)
    raise GuestError("a vCPU was never seen outside of its trap handlers", hint="it runs with interrupts off")


def _outside(regs: Regs) -> bool:
    return regs.in_user_mode or bool(regs["eflags"] & _IF)
