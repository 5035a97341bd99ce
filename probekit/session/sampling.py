"""Reads what each CPU of the guest is doing when the timer of ``profile-N`` fires.

The guest is stopped while its registers are read and the clauses run on the host. This limits the rate: firings that
are overdue are skipped, as with every timed probe.
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
    """Represents one CPU of the guest in a sample, for the clauses of a ``profile-N`` probe.

    ``arg0`` is the address in the kernel that the CPU executes, ``arg1`` the address in a user program. One is 0.
    """

    def __init__(self, attachment: Attachment, facts: GuestFacts, regs: Regs) -> None:
        args = (0, regs["rip"]) if regs.in_user_mode else (regs["rip"], 0)
        super().__init__(
            regs,
            attachment.text,
            facts,
            lambda index: args[index] if index < len(args) else 0,
            stacks=attachment.stacks,
            with_current=True,
        )

    def fact(self, name: str) -> Value:
        """Return a built-in variable of the task that runs on the CPU. ``caller`` is 0, because a sample has none."""
        return 0 if name == "caller" else super().fact(name)


def samples(attachment: Attachment) -> Iterator[tuple[int, SampledWorld]]:
    """Yield each CPU's number and its sample. The guest is stopped until the last one has been taken."""
    facts = attachment.facts  # read before the guest is stopped
    with attachment.clock.paused():
        for vcpu in attachment.target.vcpus():
            yield vcpu - 1, SampledWorld(attachment, facts, attachment.target.regs(vcpu))
