"""The shared routines: which there are, and where those that an image needs are.

They may loop, each with a bound of its own; clauses only move forward. Every routine keeps ``rbx``, ``rbp`` and
``rsp`` and may use everything else; a fault is the carry flag, with the word at fault in ``rax``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from probekit.codegen.context import Context
from probekit.errors import InternalError, UnsupportedError

__all__ = (
    "At",
    "Routine",
    "Routines",
    "find_name",
    "joined",
    "service",
)


At = Callable[[str], int]
"""The address of a routine by name; asking for it puts it into the image."""

Routine = Callable[[Context, At], str]
"""The text of a routine."""


class Routines(Protocol):
    """Where routines are."""

    def __call__(self, name: str) -> int: ...


def find_name(agg: int) -> str:
    """The look-up of a hashed aggregation."""
    return f"find_{agg}"


def joined(*tables: Mapping[str, Routine]) -> dict[str, Routine]:
    """One table; a name twice is a bug."""
    found: dict[str, Routine] = {}
    for table in tables:
        for name, routine in table.items():
            if name in found:
                raise InternalError(f"two routines are named {name}")
            found[name] = routine
    return found


def service(address: int | None, what: str) -> int:
    """The address of a kernel function. Raises :class:`UnsupportedError` where the kernel has none."""
    if address is None:
        raise UnsupportedError(f"this kernel has no {what} that a probe may call", feature=what)
    return address
