"""The errors of the command line itself."""

from __future__ import annotations

from probekit.errors import ProbekitError

__all__ = ("ScriptError",)


class ScriptError(ProbekitError):
    """A script cannot be compiled or read. The message is complete.

    ``needs_kernel``: it may be compiled with a guest's types and symbols.
    """

    def __init__(self, message: str, *, hint: str = "", needs_kernel: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.needs_kernel = needs_kernel
