"""Defines the error of a script that cannot be read or compiled."""

from __future__ import annotations

from probekit.errors import ProbekitError

__all__ = ("ScriptError",)


class ScriptError(ProbekitError):
    """A script cannot be read or compiled. The message names the script."""

    def __init__(self, message: str, *, hint: str = "", needs_kernel: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.needs_kernel = needs_kernel
        """Whether the script may compile with the types and symbols of a guest."""
