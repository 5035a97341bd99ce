"""Change the text of sites and markers in the guest, and restore it.

1. ``announce`` and ``announce_markers`` write every edit to the journal
2. ``apply_while_running`` connects markers, then changes sites in stages, if that was asked for
3. ``apply_paused`` changes all other sites in one pause
4. ``undo`` restores the sites that were changed in stages, then markers, then all other sites in one pause
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.guest_engine.live_markers import LiveMarkers
from probekit.enabling.guest_engine.stack_check import StackCheck, shared_jumps, with_int3
from probekit.enabling.guest_engine.staged_edits import FOREIGN, UNMAPPED, StagedEdits
from probekit.enabling.guest_engine.stubs import BuiltCode
from probekit.enabling.sites import EnabledSite
from probekit.errors import GuestError
from probekit.patch.edits import Edit, EditSet, apply_edits, revert_edits, rips_inside
from probekit.patch.hooks import MarkerHook, marker_edits

__all__ = ("Patches",)

_MAX_TRIES = 50


class Patches:
    """Makes and reverts all changes of one enabling in memory that belongs to the guest."""

    def __init__(
        self,
        access: GuestAccess,
        sites: Sequence[EnabledSite],
        staged: frozenset[int],
        send_heartbeat: Callable[[], None],
    ) -> None:
        """Prepare, but change nothing yet.

        ``staged``: addresses of the sites that are changed in stages. ``send_heartbeat``: called during these changes.
        """
        self._access = access
        self._shared = shared_jumps(sites)
        self._stack_check = StackCheck(self._shared, access.facts.stack_search, access.target, access.text)
        self._in_stages = staged
        self._send_heartbeat = send_heartbeat
        self._edits: EditSet | None = None
        self._staged: StagedEdits | None = None
        self.markers: LiveMarkers | None = None
        """The markers while they are connected."""
        self._unrestored = False
        """Whether some text could not be restored, so that the journal must keep the edits."""
        self.bypassed = False
        """Whether a CPU may have met an INT3 of a stage, and may still be in the trap handler."""

    def in_stages(self, built: BuiltCode) -> list[Edit]:
        """Return the edits that are made while the guest runs."""
        return [edit for edit in built.edits if edit.addr in self._in_stages]

    def announce(self, built: BuiltCode) -> None:
        """Write the sites' edits to the journal. A site with a thread inside it now gets an INT3 instead of a jump."""
        if not built.edits:
            return
        access = self._access
        with access.clock.paused():
            occupied = self._stack_check.occupied()
        staged = self.in_stages(built)
        if staged:
            self._staged = StagedEdits(staged, access.target, access.text, access.clock, self._send_heartbeat)
            self._staged.announce(access.log)
        at_once = [edit for edit in built.edits if edit.addr not in self._in_stages]
        self._edits = EditSet(with_int3(at_once, occupied, built.stubs))
        access.log.edits(self._edits.edits)
        still_jumps = [site for site in self._shared if site not in occupied]
        self._stack_check = StackCheck(still_jumps, access.facts.stack_search, access.target, access.text)

    def announce_markers(self, markers: Sequence[tuple[MarkerHook, int]]) -> None:
        """Write the edits of markers to the journal. Each marker comes with the function that it will call."""
        if markers:
            access = self._access
            self.markers = LiveMarkers(marker_edits(markers), access.target, access.text, access.clock)
            self.markers.announce(access.log)

    def apply_while_running(self) -> None:
        """Connect the markers, and change sites in stages.

        After a :class:`ConflictError`, :meth:`undo` reverses what was done.
        """
        if self.markers is not None:
            self.markers.connect()
        if self._staged is not None:
            self._staged.apply()

    def apply_paused(self) -> None:
        """Change all other sites in one pause, at a moment when no thread is inside the bytes of a site.

        Raises :class:`GuestError` when there is no such moment, :class:`ConflictError` when a site's bytes changed.
        """
        edits = self._edits
        if edits is None:
            return
        target = self._access.target
        for _ in range(_MAX_TRIES):
            self._access.check_interrupted()
            with self._access.clock.paused():
                if self._is_free(edits):
                    runs = target.foreign_runs
                    apply_edits(self._access.text, edits, lambda _: None)
                    if target.foreign_runs == runs or self._is_free(edits):
                        return
                    # Somebody let the guest run meanwhile, and now a thread is where it cannot go on.
                    revert_edits(self._access.text, edits)
            time.sleep(0.001)
        raise GuestError("a thread stayed inside the bytes to be patched", hint="try again, or probe fewer functions")

    def _is_free(self, edits: EditSet) -> bool:
        """Return whether no thread is inside the bytes of a site. The guest is stopped."""
        target = self._access.target
        rips = [target.regs(vcpu)["rip"] for vcpu in target.vcpus()]
        return not rips_inside(rips, edits) and not self._stack_check.occupied()

    def undo(self) -> list[str]:
        """Restore all text that still has our bytes: staged sites, then markers, then sites changed in one pause.

        Safe to call twice. Returns a message for each address that could not be restored.
        """
        problems = self._staged.revert() if self._staged is not None else []
        problems += self.markers.disconnect() if self.markers is not None else []
        self.bypassed = self.bypassed or self._staged is not None or self.markers is not None
        self._staged = self.markers = None
        if self._edits is not None:
            with self._access.clock.paused():
                report = revert_edits(self._access.text, self._edits)
            problems += [f"{addr:#x} {FOREIGN}" for addr, _ in report.conflicts]
            problems += [f"{addr:#x} {UNMAPPED}" for addr in report.unreadable]
            self._edits = None
        self._unrestored = self._unrestored or bool(problems)
        if not self._unrestored:
            self._access.log.reverted()
        return problems
