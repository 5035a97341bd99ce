"""Is a thread inside the bytes that a jump over several instructions will replace?

A thread is there when its processor stands there, or when it lost the processor there:
then the address is on a kernel stack. Any word on any stack that is such an address
counts, even one that is only left over. The site then gets INT3 at its first
instruction, which nobody can be in the middle of, and leads to the same stub.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probekit.enabling.sites import EnabledSite
from probekit.guest.memory import StoppedMemory
from probekit.guest.residents import Residents
from probekit.patch.detours import site_edit
from probekit.patch.edits import Edit
from probekit.patch.sites import InsnSite
from probekit.target.api import Target

__all__ = ("StackCheck", "shared_jumps", "with_int3")


def shared_jumps(sites: Iterable[EnabledSite]) -> tuple[InsnSite, ...]:
    """The sites that put several instructions under one jump."""
    return tuple({s.site.addr: s.site for s in sites if isinstance(s.site, InsnSite) and s.site.first}.values())


class StackCheck:
    """Finds them. ``sites``: as of :func:`shared_jumps`."""

    def __init__(self, sites: Sequence[InsnSite], residents: Residents, target: Target, text: StoppedMemory) -> None:
        self._owner = {addr: site for site in sites for addr in site.inner}
        self._residents = residents
        self._target = target
        self._text = text

    def inside(self) -> set[InsnSite]:
        """The sites with a thread in the middle of them. The guest is stopped."""
        if not self._owner:
            return set()
        found = self._residents.addresses(self._target, self._text, min(self._owner), max(self._owner) + 1)
        return {self._owner[addr] for addr in self._owner.keys() & found}


def with_int3(edits: Sequence[Edit], sites: Iterable[InsnSite], stubs: dict[int, int]) -> tuple[Edit, ...]:
    """``edits`` with INT3 in the place of the jump at each of ``sites``."""
    changed = {site.addr: site_edit(site._replace(trap=True), stubs[site.addr]) for site in sites}
    return tuple(changed.get(edit.addr, edit) for edit in edits)
