"""Define what a shared routine is, and find the routines of an image by name.

A routine may loop, each time with a bound of its own; clauses only move forward. Every routine keeps ``rbx``, ``rbp``
and ``rsp`` and may change everything else unless it says more. A fault is the carry flag, with the word at fault in
``rax``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from probekit.codegen.context import CodegenContext
from probekit.errors import InternalError, UnsupportedError

__all__ = (
    "AGG_FIND_PREFIX",
    "AddressOf",
    "Routine",
    "agg_find_name",
    "kernel_function",
    "merge_tables",
)


AddressOf = Callable[[str], int]
"""Gives the address of a routine by its name. Asking for it puts the routine into the image."""

Routine = Callable[[CodegenContext, AddressOf], str]
"""Makes the text of a routine."""

AGG_FIND_PREFIX = "agg_find_"
"""What the names of the look-ups of hashed aggregations begin with."""


def agg_find_name(agg: int) -> str:
    """Return the name of the look-up of a hashed aggregation."""
    return f"{AGG_FIND_PREFIX}{agg}"


def merge_tables(*tables: Mapping[str, Routine]) -> dict[str, Routine]:
    """Return one table of routines. Raises :class:`InternalError` when two have the same name."""
    merged: dict[str, Routine] = {}
    for table in tables:
        for name, routine in table.items():
            if name in merged:
                raise InternalError(f"two routines are named {name}")
            merged[name] = routine
    return merged


def kernel_function(address: int | None, name: str) -> int:
    """Return the address of a kernel function. Raises :class:`UnsupportedError` where the kernel has none."""
    if address is None:
        raise UnsupportedError(f"this kernel has no {name} that a probe may call", feature=name)
    return address
