"""The whole protocol of :mod:`probekit.patch.crossmodify` in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from probekit.patch.crossmodify import Processors, change_in_stages, wait_for_handler_exit
from probekit.patch.edits import Edit, TextMemory


def change(
    text: TextMemory,
    processors: Processors,
    edits: Iterable[Edit],
    *,
    paused: Callable[[], AbstractContextManager[None]],
    between: Callable[[], None] = lambda: None,
) -> tuple[Edit, ...]:
    """Change in stages, then wait until no vCPU is in the handler. Returns the edits that were made."""
    try:
        made = change_in_stages(text, edits, paused=paused, between=between)
    except BaseException:
        wait_for_handler_exit(processors, paused)
        raise
    if made:
        wait_for_handler_exit(processors, paused)
    return made
