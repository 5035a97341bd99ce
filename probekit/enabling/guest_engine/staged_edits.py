"""Instructions changed in stages while the guest runs, many at a time, and the way back.

No pause is longer than one stage of one part takes, however many there are. What
load_bypasses a processor that meets an INT3 is in the guest's trap handler all the while.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from probekit.enabling.api import EngineLog
from probekit.errors import ConflictError
from probekit.guest.memory import PauseClock
from probekit.patch.crossmodify import in_stages, journal_batches, leave
from probekit.patch.edits import Edit, EditSet, TextMemory
from probekit.target.api import Target

__all__ = ("FOREIGN", "UNMAPPED", "StagedEdits", "jump_targets")

_PART = 500
_TRIES = 3
FOREIGN = "was changed by somebody else and is left alone"
UNMAPPED = "is not mapped any more"


def jump_targets(edits: Iterable[Edit]) -> dict[int, int]:
    """Where each jump leads: while it is made, an INT3 over it leads there too."""
    # e9 rel32      jmp stub
    return {edit.addr: edit.addr + 5 + struct.unpack_from("<i", edit.new, 1)[0] for edit in edits}


class StagedEdits:
    """``edits``: windows of one instruction each (see :mod:`probekit.patch.crossmodify`).

    ``send_heartbeat``: called now and then, as it may take long.
    """

    def __init__(
        self,
        edits: Sequence[Edit],
        target: Target,
        text: TextMemory,
        clock: PauseClock,
        send_heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self._send_heartbeat = send_heartbeat
        self._edits = tuple(edits)
        self._target = target
        self._text = text
        self._clock = clock

    def announce(self, log: EngineLog) -> None:
        """The journal hears of everything, in the order in which it is done."""
        for batch in journal_batches(self._edits):
            if batch:
                log.edits(batch)

    def apply(self) -> None:
        """Make all of them. Raises :class:`ConflictError`; :meth:`revert` takes back what was made before."""
        for part in self._parts():
            in_stages(self._text, part, paused=self._clock.paused)
        leave(self._target, self._clock.paused)

    def revert(self) -> list[str]:
        """Put the old bytes back where ours stand; safe to repeat. Returns what is left alone, in words.

        A vCPU may be in the trap handler still: :func:`probekit.patch.crossmodify.leave` comes before its table goes.
        """
        return [problem for part in self._parts() for problem in self._revert_part(part)]

    def _revert_part(self, part: Sequence[Edit]) -> list[str]:
        for _ in range(_TRIES):
            ours, others = self._standing(part)
            with suppress(ConflictError):  # one was changed between the two looks: the others are not left for that
                in_stages(self._text, ours, paused=self._clock.paused)
                return others
        return [f"{edit.addr:#x} {FOREIGN}" for edit in part]

    def _parts(self) -> Iterator[Sequence[Edit]]:
        for at in range(0, len(self._edits), _PART):
            self._send_heartbeat()
            yield self._edits[at : at + _PART]

    def _standing(self, part: Sequence[Edit]) -> tuple[list[Edit], list[str]]:
        """The way back for those that stand now; and those that hold something else."""
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
