"""Programs that change more than their own output need ``-w``."""

from __future__ import annotations

from probekit.errors import ProbekitError
from probekit.ir.ops import Program
from probekit.session.options import Options

__all__ = ("refuse_destructive",)


def refuse_destructive(program: Program, options: Options) -> None:
    """Raise :class:`ProbekitError` for a destructive action, unless the option ``destructive`` allows it."""
    if program.destructive and not options.destructive:
        raise ProbekitError(
            "could not enable tracing: Destructive actions not allowed",
            hint=f"{program.destructive[0]}() is one; -w allows them",
        )
