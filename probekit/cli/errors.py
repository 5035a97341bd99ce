"""Errors of the command line's own."""

from __future__ import annotations

from probekit.errors import ProbekitError

__all__ = ("ScriptError",)


class ScriptError(ProbekitError):
    """A script that cannot be compiled or read; the message is complete.

    ``needs_kernel``: it might be, with a guest's types and symbols.
    """

    def __init__(self, message: str, *, hint: str = "", needs_kernel: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.needs_kernel = needs_kernel
