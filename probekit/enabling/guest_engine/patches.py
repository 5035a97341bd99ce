"""What one enabling changes in memory of the guest's own, and the way back: the text of its sites, and markers.

announce      the journal hears of every edit
make          markers and what is changed in stages, while the guest runs; all other sites in one pause
undo          the same, the other way round
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from probekit.enabling.guest_access import Reach
from probekit.enabling.guest_engine.live_markers import Marks
from probekit.enabling.guest_engine.stack_check import Threads, by_trap, shared_jumps
from probekit.enabling.guest_engine.staged_edits import FOREIGN, UNMAPPED, StagedEdits
from probekit.enabling.guest_engine.stubs import BuiltCode
from probekit.enabling.sites import EnabledSite
from probekit.errors import GuestError
from probekit.patch.edits import Edit, EditSet, apply_edits, revert_edits, rips_inside
from probekit.patch.hooks import MarkerHook, marker_edits

__all__ = ("Patches", "Undone")

_WINDOW_TRIES = 50


class Undone(NamedTuple):
    """``problems``: what could not be undone, in words. ``foreign``: somebody else has changed a site meanwhile."""

    problems: list[str]
    foreign: bool


class Patches:
    """``staged``: addresses of the sites that are changed in stages. ``beat``: called now and then meanwhile.

    ``marks``: the markers, None when there are none, or no longer. ``bypassed``: a CPU may have met an INT3 of a stage,
    and be in the trap handler still.
    """

    def __init__(
        self, reach: Reach, sites: Sequence[EnabledSite], staged: frozenset[int], beat: Callable[[], None]
    ) -> None:
        self._reach = reach
        self._shared = shared_jumps(sites)
        self._threads = Threads(self._shared, reach.facts.residents, reach.target, reach.text)
        self._in_stages = staged
        self._beat = beat
        self._edits: EditSet | None = None
        self._staged: StagedEdits | None = None
        self.marks: Marks | None = None
        self.bypassed = False

    def in_stages(self, built: BuiltCode) -> list[Edit]:
        """The edits that are made while the guest runs."""
        return [edit for edit in built.edits if edit.addr in self._in_stages]

    def announce(self, built: BuiltCode) -> None:
        """The journal hears of the sites' edits. Where a thread is inside a window now, INT3 takes the jump's place."""
        if not built.edits:
            return
        reach = self._reach
        with reach.clock.paused():
            occupied = self._threads.inside()
        staged = self.in_stages(built)
        if staged:
            self._staged = StagedEdits(staged, reach.target, reach.text, reach.clock, self._beat)
            self._staged.announce(reach.log)
        at_once = [edit for edit in built.edits if edit.addr not in self._in_stages]
        self._edits = EditSet(by_trap(at_once, occupied, built.stubs))
        reach.log.edits(self._edits.edits)
        left = [site for site in self._shared if site not in occupied]
        self._threads = Threads(left, reach.facts.residents, reach.target, reach.text)

    def announce_markers(self, markers: Sequence[tuple[MarkerHook, int]]) -> None:
        """And of the markers', each with the function that it is to call."""
        if markers:
            reach = self._reach
            self.marks = Marks(marker_edits(markers), reach.target, reach.text, reach.clock)
            self.marks.announce(reach.log)

    def make_running(self) -> None:
        """Connect the markers, and change in stages what is to be."""
        if self.marks is not None:
            self.marks.connect()
        if self._staged is not None:
            self._staged.make()

    def make_at_once(self) -> None:
        """All other sites in one pause, at a moment when no vCPU stands inside a window."""
        ready = self._edits
        if ready is None:
            return
        target = self._reach.target
        for _ in range(_WINDOW_TRIES):
            with self._reach.clock.paused():
                rips = [target.regs(vcpu)["rip"] for vcpu in target.vcpus()]
                if not rips_inside(rips, ready) and not self._threads.inside():
                    apply_edits(self._reach.text, ready, lambda _: None)
                    return
            time.sleep(0.001)
        raise GuestError("a thread stayed inside the bytes to be patched", hint="try again, or probe fewer functions")

    def undo(self) -> Undone:
        """Put everything back, as far as it is ours; safe to call twice."""
        problems = self._staged.undo() if self._staged is not None else []
        problems += self.marks.disconnect() if self.marks is not None else []
        self.bypassed = self.bypassed or self._staged is not None or self.marks is not None
        self._staged = self.marks = None
        foreign = False
        if self._edits is not None:
            with self._reach.clock.paused():
                report = revert_edits(self._reach.text, self._edits)
            problems += [f"{addr:#x} {FOREIGN}" for addr, _ in report.conflicts]
            problems += [f"{addr:#x} {UNMAPPED}" for addr in report.unreadable]
            foreign = bool(report.conflicts)
            self._edits = None
        if not problems:
            self._reach.log.reverted()
        return Undone(problems, foreign)
