"""``-S``: the compiled program as intermediate code, and what the guest runs as assembly."""

from __future__ import annotations

import sys

from probekit.ir.ops import Program

__all__ = ("show_code", "show_program")

_MOST = 1 << 16  # bytes: with thousands of sites the rest is more of the same


def show_program(program: Program) -> None:
    """The intermediate code, on standard error."""
    from probekit.ir.pprint import format_program

    sys.stderr.write(format_program(program))


def show_code(code: tuple[int, bytes] | None) -> None:
    """The machine code, on standard error; nothing when no clause runs in the guest."""
    if code is None:
        return
    from probekit.isa.listing import listing

    addr, image = code
    for line in listing(image[:_MOST], addr):
        sys.stderr.write(line + "\n")
    if len(image) > _MOST:
        sys.stderr.write(f"... {len(image) - _MOST} more bytes\n")
