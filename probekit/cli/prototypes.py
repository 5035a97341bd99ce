"""Finds the argument types of probes for ``-l -v`` and ``-v``, in the guest's type information."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from probekit.providers.api import Probe

if TYPE_CHECKING:
    from probekit.session.attach import Attachment

__all__ = ("ArgumentTypes", "argument_types")

ArgumentTypes = Callable[[Probe], tuple[str, ...] | None]
"""Returns the types of a probe's ``args[]`` as C writes them; None when they are not known."""


def argument_types(guest: Attachment | None) -> ArgumentTypes:
    """Return a function that finds the types. ``guest``: None when only the host's probes are known."""
    if guest is None:
        return lambda probe: None if probe.in_guest else ()
    from probekit.session.guest_types import GuestTypes

    return GuestTypes(guest).shown
