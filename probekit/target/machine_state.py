"""Tell whether a machine ran, and whether it may be set running, by what QEMU's monitor says through the stub.

A client that connects stops QEMU's machine. Up to QEMU 8.0 a stop packet arrives before
anything else if the machine ran until then, and none if it was stopped. Since 8.1 there is never one. The monitor's
``info status`` then still tells the states that connecting does not change, such as *prelaunch* (``-S``) or
*postmigrate*, but *paused* by an operator and *paused* by our connecting look the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

__all__ = ("OURS", "ran_before", "state_in")

OURS: Final = frozenset({"paused", "debug"})
"""The states of a machine that a debugger has stopped: it may be set running again."""

_STATUS: Final = re.compile(r"VM status: (\w+)[^()\n]*(?:\(([\w-]+)\))?")
_VERSION: Final = re.compile(r"\s*([0-9]{1,3})\.([0-9]{1,3})")
_SILENT_SINCE: Final = (8, 1)


def state_in(answer: str) -> str:
    """Return the state of a machine as QEMU names it: ``running``, ``paused``, ``debug``, ``prelaunch`` ...

    ``answer``: what the monitor said to ``info status``. Empty where that says nothing.
    """
    match = _STATUS.search(answer)
    if match is None:
        return ""
    return match[1] if match[2] is None or match[1] == "running" else match[2]


def ran_before(ask: Callable[[str], str], *, stop_seen: bool) -> bool:
    """Tell whether QEMU's machine ran until we connected. Where that cannot be known: True.

    ``ask``: runs a command of the monitor and returns the answer, empty where there is none. ``stop_seen``: whether
    a stop packet came when we connected.
    """
    if stop_seen:
        return True
    if state_in(ask("info status")) not in {"paused", ""}:
        return False
    version = _VERSION.match(ask("info version"))
    return version is None or (int(version[1]), int(version[2])) >= _SILENT_SINCE
