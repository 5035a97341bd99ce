"""Find threads inside the bytes that a jump over several instructions will replace.

A thread is there when its processor executes there, or when it was preempted there:
then the address is on a kernel stack. Any word on any stack that is such an address
counts, even one left over from earlier calls. The site then gets an INT3 on its first
instruction instead, which leads to the same stub: no thread can be in the middle of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probekit.enabling.sites import EnabledSite
from probekit.guest.memory import StoppedMemory
from probekit.guest.stack_search import StackSearch
from probekit.patch.detours import site_edit
from probekit.patch.edits import Edit
from probekit.patch.sites import InsnSite
from probekit.target.api import Target

__all__ = ("StackCheck", "shared_jumps", "with_int3")


def shared_jumps(sites: Iterable[EnabledSite]) -> tuple[InsnSite, ...]:
    """Return the sites whose jump replaces several instructions, each once."""
    return tuple({s.site.addr: s.site for s in sites if isinstance(s.site, InsnSite) and s.site.first_size}.values())


class StackCheck:
    """Finds threads in the middle of sites."""

    def __init__(
        self, sites: Sequence[InsnSite], stack_search: StackSearch, target: Target, text: StoppedMemory
    ) -> None:
        """Look for threads in ``sites``: see :func:`shared_jumps`."""
        self._owner = {addr: site for site in sites for addr in site.interior}
        self._stack_search = stack_search
        self._target = target
        self._text = text

    def occupied(self) -> set[InsnSite]:
        """Return the sites with a thread in the middle of them. The guest is stopped."""
        if not self._owner:
            return set()
        found = self._stack_search.addresses_in_use(self._target, self._text, min(self._owner), max(self._owner) + 1)
        return {self._owner[addr] for addr in self._owner.keys() & found}


def with_int3(edits: Sequence[Edit], sites: Iterable[InsnSite], stubs: dict[int, int]) -> tuple[Edit, ...]:
    """Return ``edits`` with an INT3 instead of the jump at each of ``sites``. ``stubs``: stub addresses by site."""
    changed = {site.addr: site_edit(site._replace(trap=True), stubs[site.addr]) for site in sites}
    return tuple(changed.get(edit.addr, edit) for edit in edits)
