"""Keep kernel modules of the guest from being unloaded while something of ours refers to them.

We take a reference to the module with ``try_module_get``, so the guest's own `rmmod`
fails with "in use" until ``module_put``. A kernel that cannot unload modules has neither
function and needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from probekit.errors import GuestError
from probekit.guest.calls import GetModule, PutModule
from probekit.guest.safepoint import SafePoint
from probekit.kernel.btf import Btf
from probekit.kernel.tracepoints import ReadRanges

__all__ = ("ModuleRefs", "find_module_refs")

_MAX_MODULES = 4096
_LIVE = 0


@dataclass(frozen=True, slots=True)
class ModuleRefs:
    """Takes and gives back references to modules, by the kernel's functions."""

    get: int
    """Address of ``try_module_get``."""
    put: int
    """Address of ``module_put``."""
    modules: int
    """Address of the list's head."""
    link: int
    """Offset of the list's links in ``struct module``."""
    state: int
    """Offset of ``state`` in ``struct module``."""

    def is_loaded(self, read: ReadRanges, module: int) -> bool:
        """Return whether the ``struct module`` at ``module`` is listed and in state LIVE. The guest is stopped."""
        at = self.modules
        for _ in range(_MAX_MODULES):
            at = _number(read, at, 8)
            if at in (0, self.modules):
                return False
            if at - self.link == module:
                return _number(read, module + self.state, 4) == _LIVE
        return False

    def take(self, point: SafePoint, read: ReadRanges, module: int) -> None:
        """Take a reference to the ``struct module`` at ``module``.

        Raises :class:`GuestError` when the module was unloaded, or is being unloaded.
        """
        if not self.is_loaded(read, module):
            raise GuestError(f"the module at {module:#x} was unloaded meanwhile", hint="try again")
        if not point.call(self.get, module, purpose=GetModule(module)) & 0xFF:
            raise GuestError(f"the module at {module:#x} is being unloaded")

    def give_back(self, point: SafePoint, module: int) -> None:
        """Give the reference back."""
        point.call(self.put, module, purpose=PutModule(module))


def _number(read: ReadRanges, addr: int, size: int) -> int:
    return int.from_bytes(read([(addr, size)])[0] or b"", "little")


def find_module_refs(find: Callable[[str], int | None], btf: Btf | None) -> ModuleRefs | None:
    """Look the functions up by name. Returns None where modules cannot be unloaded or listed."""
    get, put, modules = find("try_module_get"), find("module_put"), find("modules")
    layout = btf.find_struct("module") if btf is not None else None
    if get is None or put is None or modules is None or layout is None:
        return None
    return ModuleRefs(get, put, modules, layout.field("list").offset, layout.field("state").offset)
