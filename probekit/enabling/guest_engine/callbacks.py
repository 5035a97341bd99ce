"""The functions of one enabling that the guest itself calls, and the modules that own what calls them.

hold          the modules, so that they cannot be unloaded under us
announce      the journal hears of every registration
connect       one guest call registers all of them

All of it is taken back by :mod:`probekit.enabling.guest_engine.registrations`.
"""

from __future__ import annotations

from collections.abc import Sequence

from probekit.enabling.guest_engine.registrations import MODULE, TRACEPOINT, Registered
from probekit.errors import InternalError, UnsupportedError
from probekit.guest.holds import ModuleHolds
from probekit.guest.safepoint import SafePoint
from probekit.guest.tracepoints import Hooked, Routine, TracepointServices
from probekit.patch.edits import TextMemory
from probekit.patch.journal_state import Registration

__all__ = ("Hooks",)


class Hooks:
    """``owners``: each ``struct module`` that must stay. ``text``: guest memory while it is stopped.

    ``services``: None for a kernel without tracepoints, which may have markers all the same.
    """

    def __init__(
        self,
        services: TracepointServices | None,
        holds: ModuleHolds | None,
        owners: Sequence[int],
        text: TextMemory,
        registered: Registered,
    ) -> None:
        self._services = services
        self._holds = holds
        self._owners = tuple(owners)
        self._text = text
        self._registered = registered
        self._hooks: tuple[Hooked, ...] = ()

    def hold(self, point: SafePoint) -> None:
        """Keep the modules. Raises :class:`GuestError` when one is being unloaded."""
        for owner in self._owners if self._holds is not None else ():
            if self._holds is None:
                raise InternalError("modules are held in a kernel that cannot hold them")
            self._holds.hold(point, self._text.read_many, owner)
            self._registered.add([Registration(MODULE, (owner,))])

    @property
    def announced(self) -> bool:
        """There is something to register."""
        return bool(self._hooks)

    def announce(self, hooks: Sequence[Hooked], routine: Routine) -> None:
        """``routine``: registers them, and is not in the guest before this."""
        if not hooks:
            return
        if self._services is None:
            raise UnsupportedError("this kernel has no way to register at its tracepoints", feature="tracepoints")
        self._hooks = tuple(hooks)
        self._registered.routine = routine
        self._registered.add([Registration(TRACEPOINT, tuple(hook)) for hook in hooks])

    def connect(self, point: SafePoint) -> None:
        """Register all of them. Raises :class:`GuestError`; some are registered then."""
        if self._services is None or self._registered.routine is None:
            raise InternalError("tracepoints are connected in a kernel that cannot register them")
        self._services.connect(point, self._hooks, self._registered.routine, self._text.write_many)
