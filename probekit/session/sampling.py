"""``profile-N`` with a guest: what each of its CPUs is doing, at the moment that the timer fires.

The guest is stopped for as long as it takes to read its registers and to run the clauses here, so the rate is not for
long what 4999 times a second would need; firings that come too late are left out, as with every timed probe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from probekit.enabling.host.vcpu import VcpuWorld
from probekit.interp.run import Value

if TYPE_CHECKING:
    from probekit.guest.facts import GuestFacts
    from probekit.session.attach import Attachment
    from probekit.target.api import Regs

__all__ = ("SampledWorld", "samples")


class SampledWorld(VcpuWorld):
    """A CPU of the guest. ``arg0``: where its kernel is, ``arg1``: where its program is; the other one is 0."""

    def __init__(self, attachment: Attachment, facts: GuestFacts, regs: Regs) -> None:
        place = (0, regs["rip"]) if regs.in_user_mode else (regs["rip"], 0)
        super().__init__(
            regs,
            attachment.text,
            facts,
            lambda index: place[index] if index < len(place) else 0,
            stacks=attachment.stacks,
            with_current=True,
        )

    def fact(self, name: str) -> Value:
        """Of the task that runs there; nobody has called what the timer comes upon."""
        return 0 if name == "caller" else super().fact(name)


def samples(attachment: Attachment) -> Iterator[tuple[int, SampledWorld]]:
    """Each CPU and what is to be seen of it; the guest stands still until the last one has been taken."""
    facts = attachment.facts  # read before the guest is stopped
    with attachment.clock.paused():
        for vcpu in attachment.target.vcpus():
            yield vcpu - 1, SampledWorld(attachment, facts, attachment.target.regs(vcpu))
