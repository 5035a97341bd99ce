"""Keep copies of the sites' instructions in guest memory. After a firing, the vCPU goes on in its site's slot.

slot    the site's own instruction, nop, nop, jump to the next instruction (:mod:`probekit.patch.step_slot`)
"""

from __future__ import annotations

from collections.abc import Sequence

from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.registrations import Registrations
from probekit.enabling.release import Holdings, release_holdings
from probekit.enabling.sites import EnabledSite
from probekit.errors import InternalError
from probekit.guest.linux import Allocation
from probekit.patch.hooks import Hook
from probekit.patch.step_slot import STEP_SLOT_SIZE, step_slot

__all__ = ("StepSlots",)


class StepSlots:
    """Allocates and frees the slots of one enabling: one slot for each site given to :meth:`make`."""

    def __init__(self, access: GuestAccess, limit: float) -> None:
        """Prepare, but allocate nothing yet. ``limit``: seconds to wait at the end until no task is in a slot."""
        self._access = access
        self._limit = limit
        self._memory: Allocation | None = None
        self._addrs: dict[int, int] = {}
        self._written: list[tuple[int, bytes]] = []
        self.size = 0
        """Bytes of guest memory that the slots take, or took before they were freed."""

    def make(self, sites: Sequence[EnabledSite]) -> None:
        """Allocate executable memory and write a slot for each site. Leaves the guest stopped.

        Raises :class:`ProbekitError` when there is no safe point or no memory. :meth:`release` frees the memory then.
        """
        services = self._access.facts.services
        with self._access.safe_point() as point:
            memory = services.allocate(point, "exec", STEP_SLOT_SIZE * len(sites))
            self._memory = memory
            self._access.log.allocated(memory)
            services.make_executable(point, memory)
        self.size = memory.size
        slots: list[tuple[int, bytes]] = []
        for number, site in enumerate(sites):
            if isinstance(site.site, Hook):
                raise InternalError(f"the stop engine has a site at {site.site.addr:#x} that is not in text")
            addr = memory.addr + number * STEP_SLOT_SIZE
            self._addrs[site.site.addr] = addr
            slots.append((addr, step_slot(site.site, addr)))
        self._access.text.write_many(slots)
        self._written = slots

    def is_in_place(self) -> bool:
        """Return whether the guest's memory still holds the slots. The guest is stopped."""
        found = self._access.text.read_many([(addr, len(code)) for addr, code in self._written])
        return found == [code for _, code in self._written]

    def addr(self, site: int) -> int:
        """Return the address of the slot of the site at address ``site``."""
        return self._addrs[site]

    def release(self, *, keep: str = "") -> list[str]:
        """Free the slots once no task can be in one; safe to call twice. Lets the guest run.

        ``keep``: why a vCPU may still be sent to a slot, or empty. Returns a message if the memory stays allocated.
        """
        memory, self._memory = self._memory, None
        if memory is None:
            return []
        access = self._access
        return release_holdings(
            Holdings(
                target=access.target,
                text=access.text,
                facts=access.facts,
                log=access.log,
                clock=access.clock,
                safe_point=lambda: access.safe_point(ending=True),
                memory=[memory],
                registrations=Registrations(access.facts, access.text, access.log),
                limit=self._limit,
                keep=keep,
            )
        )
