"""Register the functions of one enabling with the kernel's tracepoints, and keep the modules loaded that have them.

1. ``hold`` takes a reference to each module, so that it cannot be unloaded
2. ``announce`` writes every registration to the journal
3. ``connect`` registers all functions in one guest call

:mod:`probekit.enabling.registrations` undoes all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from probekit.enabling.registrations import Registrations
from probekit.errors import UnsupportedError, required
from probekit.guest.module_refs import ModuleRefs
from probekit.guest.safepoint import SafePoint
from probekit.guest.tracepoints import BatchRoutine, TracepointProbe, TracepointServices
from probekit.patch.edits import TextMemory
from probekit.patch.journal_payloads import MODULE, TRACEPOINT, Registration

__all__ = ("Callbacks",)


class Callbacks:
    """Registers the functions of one enabling that the kernel calls from tracepoints."""

    def __init__(
        self,
        services: TracepointServices | None,
        module_refs: ModuleRefs | None,
        owners: Sequence[int],
        text: TextMemory,
        registrations: Registrations,
    ) -> None:
        """Prepare, but change nothing yet.

        ``services``: None for a kernel without tracepoints, which may still have markers. ``module_refs``: None for a
        kernel that cannot unload modules. ``owners``: address of each ``struct module`` that must stay loaded.
        ``text``: guest memory while the guest is stopped.
        """
        self._services = services
        self._module_refs = module_refs
        self._owners = tuple(owners)
        self._text = text
        self._registrations = registrations
        self._probes: tuple[TracepointProbe, ...] = ()

    def hold(self, point: SafePoint) -> None:
        """Take a reference to each module. Raises :class:`GuestError` when one is being unloaded."""
        if self._module_refs is None:
            return
        for owner in self._owners:
            self._module_refs.take(point, self._text.read_many, owner)
            self._registrations.add([Registration(MODULE, (owner,))])

    @property
    def announced(self) -> bool:
        """Whether there is something to register."""
        return bool(self._probes)

    def announce(self, probes: Sequence[TracepointProbe], routine: BatchRoutine) -> None:
        """Write the registrations to the journal.

        ``routine``: registers and unregisters them; it must be in the guest by now. Raises :class:`UnsupportedError`
        for a kernel without tracepoints.
        """
        if not probes:
            return
        if self._services is None:
            raise UnsupportedError("this kernel has no way to register at its tracepoints", feature="tracepoints")
        self._probes = tuple(probes)
        self._registrations.routine = routine
        self._registrations.add([Registration(TRACEPOINT, tuple(probe)) for probe in probes])

    def connect(self, point: SafePoint) -> None:
        """Register all functions. When it raises :class:`GuestError`, some are registered."""
        services = required(self._services, "the kernel's registration of tracepoint probes")
        routine = required(self._registrations.routine, "the routine that registers tracepoint probes")
        services.register_probes(point, self._probes, routine, self._text.write_many)
