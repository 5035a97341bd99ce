"""A program run through the Python API, while something happens in the guest."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from probekit.consumer import events as model
from probekit.ir.build import compile_program
from probekit.session.attach import AttachOptions, attach
from probekit.session.guest_types import GuestTypes
from probekit.session.options import EngineName, Options
from probekit.session.run import Run
from probekit.session.signals import Interrupts
from tests.live.tool import TICK
from vm.guest import Guest

__all__ = ("Outcome", "trace")

_TICK_NAME = TICK.split()[0]
_LIMIT = 120.0


@dataclass
class Outcome:
    """``events``: without the tick that tells that probes are live; ``work``: what the work in the guest returned."""

    events: list[model.Event] = field(default_factory=list)
    aggregations: dict[str, model.Aggregation] = field(default_factory=dict)
    status: int = 0
    stats: dict[str, float | int] = field(default_factory=dict)
    refused: tuple[Any, ...] = ()
    work: Any = None

    def table(self, name: str = "") -> dict[tuple[model.KeyValue, ...], Any]:
        """Key to value."""
        return {row.key: row.value for row in self.aggregations[name].rows}

    def fired(self) -> list[model.ProbeFired]:
        """The records."""
        return [event for event in self.events if isinstance(event, model.ProbeFired)]

    def texts(self) -> list[str]:
        """What ``printf()`` printed, record by record."""
        return ["".join(i.text for i in e.items if isinstance(i, model.Printed)) for e in self.fired()]

    def traced(self) -> list[tuple[int | str, ...]]:
        """What ``trace()`` recorded, record by record."""
        wanted = (model.TraceInt, model.TraceString)
        return [
            tuple(i.value if isinstance(i, model.TraceInt) else i.text for i in e.items if isinstance(i, wanted))
            for e in self.fired()
        ]

    def trouble(self) -> list[model.Event]:
        """Drops, faults and messages. How late ticks were on a busy machine is left out."""
        found = [event for event in self.events if isinstance(event, model.Drop | model.Fault | model.Message)]
        return [event for event in found if not (isinstance(event, model.Drop) and event.kind == "missed")]

    def missed(self) -> int:
        """How many firings timed probes have missed, on all CPUs."""
        return sum(event.count for event in self.events if isinstance(event, model.Drop) and event.kind == "missed")


def trace(
    guest: Guest | str,
    script: str,
    work: Callable[[], Any] | None = None,
    *,
    engine: EngineName = "guest",
    options: Options | None = None,
    ram: str | None = None,
    limit: float = _LIMIT,
    tick: bool = True,
    measure: bool = False,
) -> Outcome:
    """Run ``script``; once its probes are live, ``work``; end when that has ended (without work: on ``exit()``).

    ``measure``: clauses take their own time. ``limit``: seconds, for the whole of it. ``tick``: its record is what
    tells that probes are live; without it, the run itself (for buffers that are only read at the end).
    """
    spec = guest if isinstance(guest, str) else guest.gdb
    outcome = Outcome()
    interrupts = Interrupts()
    failure: list[BaseException] = []

    def labour() -> None:
        try:
            outcome.work = work() if work is not None else None
        except BaseException as error:  # noqa: BLE001 - it is raised again where the test waits
            failure.append(error)
        finally:
            interrupts.request(signal.SIGINT)

    def started() -> None:
        if work is not None and not tick:
            worker.start()

    worker = threading.Thread(target=labour, daemon=True)
    with attach(spec, AttachOptions(ram=ram)) as attachment:
        text = f"{script}\n{TICK}" if work and tick else script
        program = compile_program(text, kernel=GuestTypes(attachment))
        run = Run(
            attachment,
            program,
            options or Options(),
            engine=engine,
            interrupts=interrupts,
            started=started,
            measure=measure,
        )
        with run:
            for event in run.events(seconds=limit):
                if isinstance(event, model.ProbeFired) and event.probe.name.name == _TICK_NAME:
                    if work is not None and worker.ident is None:
                        worker.start()
                else:
                    outcome.events.append(event)
            outcome.aggregations = {a.name: a for a in run.aggregations()}
            outcome.status, outcome.stats, outcome.refused = run.status, run.stats, run.refused
    if worker.ident is not None:
        worker.join(30)
    if failure:
        raise failure[0]
    return outcome
