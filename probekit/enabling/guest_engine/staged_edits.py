"""Change instructions in stages while the guest runs, many at a time, and restore them.

However many there are, no pause is longer than one stage of one part. Between the
stages, the guest's trap handler redirects every processor that meets an INT3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from probekit.enabling.api import EngineLog
from probekit.errors import ConflictError
from probekit.guest.memory import PauseClock
from probekit.patch.crossmodify import change_in_stages, journal_batches, wait_for_handler_exit
from probekit.patch.edits import Edit, EditSet, TextMemory
from probekit.target.api import Target

__all__ = ("FOREIGN", "UNMAPPED", "StagedEdits", "jump_targets")

_PART = 500  # edits that go through the stages together
_MAX_TRIES = 3
FOREIGN = "was changed by somebody else and is left alone"
"""The end of a message about an address whose bytes are not ours."""

UNMAPPED = "is not mapped any more"
"""The end of a message about an address that cannot be read."""


def jump_targets(edits: Iterable[Edit]) -> dict[int, int]:
    """Return the target of each jump, by its address. An INT3 over it leads to the same target meanwhile."""
    # e9 rel32      jmp stub
    return {edit.addr: edit.addr + 5 + struct.unpack_from("<i", edit.new, 1)[0] for edit in edits}


class StagedEdits:
    """Makes and reverts edits of one instruction each, in stages (see :mod:`probekit.patch.crossmodify`)."""

    def __init__(
        self,
        edits: Sequence[Edit],
        target: Target,
        text: TextMemory,
        clock: PauseClock,
        send_heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare, but change nothing yet. ``send_heartbeat``: called before each part, as all parts may take long."""
        self._send_heartbeat = send_heartbeat
        self._edits = tuple(edits)
        self._target = target
        self._text = text
        self._clock = clock

    def announce(self, log: EngineLog) -> None:
        """Write all edits to the journal, in the order in which they are made."""
        for batch in journal_batches(self._edits):
            if batch:
                log.edits(batch)

    def apply(self) -> None:
        """Make all edits. After a :class:`ConflictError`, :meth:`revert` undoes those that were made."""
        for part in self._parts():
            change_in_stages(self._text, part, paused=self._clock.paused)
        wait_for_handler_exit(self._target, self._clock.paused)

    def revert(self) -> list[str]:
        """Put the old bytes back where ours are; safe to repeat. Returns a message for each address left alone.

        A vCPU may still be in the trap handler afterwards: call
        :func:`probekit.patch.crossmodify.wait_for_handler_exit` before the handler's table is freed.
        """
        return [problem for part in self._parts() for problem in self._revert_part(part)]

    def _revert_part(self, part: Sequence[Edit]) -> list[str]:
        for _ in range(_MAX_TRIES):
            ours, others = self._reverse_edits(part)
            with suppress(ConflictError):  # one was changed meanwhile: try the others again
                change_in_stages(self._text, ours, paused=self._clock.paused)
                return others
        return [f"{edit.addr:#x} {FOREIGN}" for edit in part]

    def _parts(self) -> Iterator[Sequence[Edit]]:
        for at in range(0, len(self._edits), _PART):
            self._send_heartbeat()
            yield self._edits[at : at + _PART]

    def _reverse_edits(self, part: Sequence[Edit]) -> tuple[list[Edit], list[str]]:
        """Return reverse edits for sites that still hold our bytes, and a message for each that holds other bytes."""
        edits = EditSet(part)
        with self._clock.paused():
            found = edits.read(self._text)
        ours: list[Edit] = []
        problems: list[str] = []
        for edit, have in zip(edits.edits, found, strict=True):
            if have == edit.new:
                ours.append(Edit(edit.addr, edit.new, edit.old))
            elif have is None:
                problems.append(f"{edit.addr:#x} {UNMAPPED}")
            elif have != edit.old:
                problems.append(f"{edit.addr:#x} {FOREIGN}")
        return ours, problems
