"""Shows the compiled program for ``-S``: its intermediate code, and the machine code in the guest as assembly."""

from __future__ import annotations

from probekit.ir.ops import Program
from probekit.output.streams import process_output

__all__ = ("show_code", "show_program")

_MAX_SHOWN = 1 << 16  # bytes; with thousands of sites the rest is similar


def show_program(program: Program) -> None:
    """Write the intermediate code to standard error."""
    from probekit.ir.pprint import format_program

    process_output().say(format_program(program))


def show_code(code: tuple[int, bytes] | None) -> None:
    """Write the machine code to standard error; nothing when no clause runs in the guest.

    ``code``: its address and bytes.
    """
    if code is None:
        return
    from probekit.isa.disassemble import disassemble

    addr, image = code
    lines = [*disassemble(image[:_MAX_SHOWN], addr)]
    if len(image) > _MAX_SHOWN:
        lines.append(f"... {len(image) - _MAX_SHOWN} more bytes")
    process_output().say("".join(line + "\n" for line in lines))
