"""The code of built-in variables."""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import FaultKind
from probekit.codegen.emit_context import Here
from probekit.ir.ops import Reg

__all__ = (
    "TASK_TEXTS",
    "task_text",
)

TASK_TEXTS = ("cwd", "execargs", "root")
"""The built-in strings that a routine makes."""


def task_text(name: str, dst: Reg, here: Here) -> Iterator[str]:
    """The code of one of :data:`TASK_TEXTS`."""
    yield from here.target(dst)
    yield here.call(name)
    yield f"jb {here.fault(FaultKind.BADADDR)}"
    yield from here.made(dst)
