"""Finds out which guest the command line means, and how to attach to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from probekit.cli.args import Arguments, UsageError
from probekit.cli.progress import Progress, answer
from probekit.errors import ProbekitError
from probekit.output.streams import process_output

if TYPE_CHECKING:
    from probekit.session.attach import AttachOptions

__all__ = ("NO_GUEST", "attach_options", "found_guest", "target_of")

NO_GUEST = "none"
"""The target of ``-r`` for a run without a guest."""


def target_of(arguments: Arguments) -> str:
    """Return the target of ``-r`` or of ``PROBEKIT_TARGET``; empty when none is named.

    Raises :class:`ProbekitError` for a malformed one.
    """
    spec = arguments.remote or os.environ.get("PROBEKIT_TARGET", "")
    if spec and spec != NO_GUEST:
        from probekit.target.connect import parse_spec

        parse_spec(spec)
    return spec


def found_guest(*, quiet: bool) -> str:
    """Return the only guest of this host that has a gdb stub. Prints which guest was chosen unless ``quiet``.

    Raises :class:`UsageError` when there is none, or more than one.
    """
    from probekit.target.discovery import only_guest

    try:
        spec, name = only_guest()
    except ProbekitError as error:
        raise UsageError(str(error), error.hint) from error
    if not quiet:
        process_output().say(f"probekit: guest {name}: {spec}\n")
    return spec


def attach_options(arguments: Arguments, progress: Progress) -> AttachOptions:
    """Return the options for attaching that the command line gives."""
    from probekit.session.attach import AttachOptions

    return AttachOptions(
        symbols=Path(arguments.symbols) if arguments.symbols else None,
        cache=not arguments.no_cache,
        ram=arguments.ram,
        progress=progress,
        answer=answer,
        timeout=arguments.timeout,
        qmp=arguments.qmp,
        changes=not (arguments.list or arguments.compile_only),
    )
