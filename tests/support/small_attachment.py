"""The command line on a fake guest: what :func:`probekit.session.attach.attach` gives, with a small enabling in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.enabling.sites import SiteSet
from probekit.guest.memory import PauseClock
from probekit.probe.names import ProbeDescription
from probekit.providers.registry import make_registry
from probekit.session.attach import AttachOptions
from probekit.session.exclusive import ExclusiveUse
from probekit.session.signals import Interrupts
from tests.support.fake_guest_facts import FACTS
from tests.support.small_enabling import SmallEnabling, small_sites

__all__ = ("small_guest",)


class _Registry:
    """The probes of the small enabling, and those of the host."""

    def __init__(self) -> None:
        self._host = make_registry(None)

    def match(self, description: ProbeDescription) -> Iterator[Any]:
        if description.provider == "fbt":
            yield from (site.probe for site in small_sites())
        else:
            yield from self._host.match(description)

    def by_id(self, probe_id: int) -> Any:
        return self._host.by_id(probe_id)


@contextmanager
def small_guest(world: SmallEnabling, detached: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let the command line attach to the guest of ``world``. ``detached``: is called when it detaches."""
    clock = PauseClock(world.guest)  # type: ignore[arg-type]

    @contextmanager
    def attach(spec: str, options: AttachOptions) -> Iterator[Any]:
        options.progress(f"connecting to {spec}")
        world.guest.running = True
        guest = SimpleNamespace(
            alive=lambda stopped: None,
            attach_pause=0.0,
            clock=clock,
            facts=FACTS,
            gone=None,
            guest_cookie=b"boot",
            interrupts=Interrupts(),
            is_paused=lambda: False,
            kernel=SimpleNamespace(symbols=SimpleNamespace(lookup=lambda addr: None)),
            life=SimpleNamespace(
                alive=lambda stopped: None, check=lambda: False, gone=None, panicked=lambda: False, why_lost=lambda e: e
            ),
            progress=options.progress,
            read_code=lambda ranges: [None for _ in ranges],
            registry=_Registry(),
            use=ExclusiveUse(),
            safe_loads=SimpleNamespace(read=lambda addr, size: None, invalidate=lambda: None),
            side_entries=(),
            spec=spec,
            stacks=None,
            system_calls=None,
            target=world.guest,
            text_facts=SimpleNamespace(pads=frozenset(), refused=None),
        )
        try:
            yield guest
        finally:
            detached()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("probekit.session.attach.attach", attach)
        patched.setattr("probekit.cli.trace.argument_types", lambda guest: lambda probe: None)
        patched.setattr("probekit.session.guest_sites.find_sites", lambda *given: SiteSet(tuple(small_sites()), ()))
        patched.setattr("probekit.session.guest_tracing.new_journal", lambda *given: world.log())
        patched.setattr(
            "probekit.session.guest_tracing.make_engine", lambda guest, plan, log: world.engine(log, plan.program)
        )
        yield
