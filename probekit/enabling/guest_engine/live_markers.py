"""Connect the markers of one enabling and switch them on, and switch them off and disconnect them again.

    on     function pointer = ours;  switch of a generic marker = 1;  immediates = 1, in the stages of
           :mod:`probekit.patch.crossmodify`
    off    immediates = 0, in stages;  switches = 0;  function pointers = their old values

A processor that has seen a marker switched on may call through the pointer at any
later time, so the pointer leads to code at every moment. It calls with preemption
off: once every processor has been through a quiescent state, none is in our code.
"""

from __future__ import annotations

from collections.abc import Sequence

from probekit.enabling.api import EngineLog
from probekit.enabling.guest_engine.staged_edits import FOREIGN, UNMAPPED, StagedEdits
from probekit.guest.memory import PauseClock
from probekit.patch.edits import EditSet, TextMemory, apply_edits, revert_edits
from probekit.patch.hooks import MarkerEdits, MarkerHook
from probekit.patch.merged_writes import MergedWrites
from probekit.target.api import Target

__all__ = ("LiveMarkers", "load_bypasses")


def load_bypasses(markers: Sequence[tuple[MarkerHook, int]]) -> dict[int, int]:
    """Return where a processor goes on after the INT3 over a load, by the load's address: at the next instruction.

    The load is left out then. That is harmless while a marker is switched: the register only says whether it is on, and
    either answer is right at that moment.
    """
    return {addr: addr + len(old) for hook, _ in markers for addr, old in hook.loads}


class LiveMarkers:
    """Makes the edits that connect markers and switch them on, and reverts them.

    The :func:`load_bypasses` must be in the guest's trap handler before :meth:`connect`, and until all markers are off.
    """

    def __init__(self, edits: MarkerEdits, target: Target, text: TextMemory, clock: PauseClock) -> None:
        self._pointers = EditSet(edits.pointers)
        self._switches = EditSet(edits.switches)
        self._text = MergedWrites(text)  # the markers of a kernel are close together in memory
        self._clock = clock
        self._loads = StagedEdits(edits.loads, target, self._text, clock)

    def announce(self, log: EngineLog) -> None:
        """Write all edits to the journal, in the order in which they are made."""
        for batch in (self._pointers.edits, self._switches.edits):
            if batch:
                log.edits(batch)
        self._loads.announce(log)

    def connect(self) -> None:
        """Make the markers call us. After a :class:`ConflictError`, :meth:`disconnect` undoes what was done."""
        with self._clock.paused():
            apply_edits(self._text, self._pointers, lambda _: None)
            apply_edits(self._text, self._switches, lambda _: None)
        self._loads.apply()

    def disconnect(self) -> list[str]:
        """Make the markers no longer call us; safe to repeat.

        Returns a message for each address that somebody else has changed, which is left alone.
        """
        problems = self._loads.revert()
        with self._clock.paused():
            for edits in (self._switches, self._pointers):
                report = revert_edits(self._text, edits)
                problems += [f"{addr:#x} {FOREIGN}" for addr, _ in report.conflicts]
                problems += [f"{addr:#x} {UNMAPPED}" for addr in report.unreadable]
        return problems
