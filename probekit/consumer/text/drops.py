"""Has the text of each drop message, in DTrace's words.

drop_text(Drop("principal", cpu=0, count=12, total=12))  ->  "12 drops on CPU 0"
"""

from __future__ import annotations

from probekit.consumer.events import Drop, DropKind
from probekit.records import record

__all__ = ("DROP_WORDS", "drop_text")


@record
class _Words:
    """The parts of a message ``12 <noun>s<suffix>``."""

    noun: str
    suffix: str = ""


DROP_WORDS: dict[DropKind, _Words] = {
    "principal": _Words("drop"),
    "aggregation": _Words("aggregation drop"),
    "dynamic": _Words("dynamic variable drop"),
    "dyndirty": _Words("dynamic variable drop", " with non-empty dirty list"),
    "spec": _Words("speculative drop"),
    "specbusy": _Words("failed speculation", " (available buffer(s) still busy)"),
    "specunavail": _Words("failed speculation", " (no speculative buffer available)"),
    "dblerror": _Words("error", " in ERROR probe enabling"),
    # The rest are probekit's own.
    "recursion": _Words("recursion drop"),
    "corrupt": _Words("corrupt record"),
    "silenced": _Words("watchdog timeout", ": probes were off because probekit sent no heartbeat for some seconds"),
    "unseen": _Words("unseen change", " of watched memory"),
    "undecoded": _Words("unknown instruction", " at watched memory"),
    "steps": _Words("single step", " without a trap"),
    "missed": _Words("missed firing"),
}
"""The words of the message for each kind of drop."""


def drop_text(drop: Drop) -> str:
    """Return the drop message, without the program's name."""
    words = DROP_WORDS[drop.kind]
    plural = "" if drop.count == 1 else "s"
    cpu = "" if drop.cpu is None else f" on CPU {drop.cpu}"
    probe = "" if drop.probe is None else f" of {drop.probe.name}"
    return f"{drop.count} {words.noun}{plural}{words.suffix}{probe}{cpu}"
