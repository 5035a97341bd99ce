"""Errors of the command line's own."""

from __future__ import annotations

from probekit.errors import ProbekitError

__all__ = ("ScriptError",)


class ScriptError(ProbekitError):
    """A script that cannot be compiled or read; the message is complete."""
