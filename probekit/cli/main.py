"""Calls the command, and turns every error into a message and an exit status."""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import NoReturn

from probekit.cli.args import HelpWanted, UsageError, parse
from probekit.errors import ProbekitError

__all__ = ("main", "run")


def main(argv: list[str]) -> int:
    """Run a command line. Returns the exit status. No error is shown as a traceback."""
    try:
        command, arguments = parse(argv)
        if command == "recover":
            from probekit.cli.recover import recover_command

            return recover_command(arguments)
        if arguments.version:
            from importlib.metadata import version

            from probekit.cli.cpp import D_VERSION

            language = ".".join(map(str, D_VERSION[:2]))
            sys.stdout.write(f"probekit: version {version('probekit')}, D {language}\n")
            return 0
        from probekit.cli.trace import trace

        return trace(arguments)
    except HelpWanted as wanted:
        sys.stdout.write(str(wanted))
        return 0
    except UsageError as error:
        usage = f"\n{error.usage.rstrip()}" if error.usage else ""
        sys.stderr.write(f"probekit: {error}{usage}\nTry `probekit --help`.\n")
        return 2
    except BrokenPipeError:
        # The reader of our output has closed it. The guest has been restored already.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ProbekitError as error:
        sys.stdout.flush()
        sys.stderr.write(f"probekit: {error.message}\n")
        for note in getattr(error, "__notes__", ()):
            sys.stderr.write(f"probekit: {note}\n")
        if error.hint:
            sys.stderr.write(f"probekit: hint: {error.hint}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def run() -> None:
    """Run the ``probekit`` command and end the process."""
    # A kernel's symbols are a million small objects that are never freed. To search them for garbage would take a
    # fifth of the time until tracing starts.
    gc.set_threshold(2_000_000, 20, 20)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Bytes of the guest that are not UTF-8 are written unchanged to standard output, and escaped to
            # standard error.
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    try:
        status = main(sys.argv[1:])
    except Exception as error:
        if os.environ.get("PROBEKIT_DEBUG"):
            raise
        sys.stderr.write(f"probekit: internal error: {type(error).__name__}: {error}; PROBEKIT_DEBUG=1 shows where\n")
        status = 1
    _end_process(status)


def _end_process(status: int) -> NoReturn:
    """End the process at once when nothing is left to write.

    Everything is closed by now, and a kernel's symbols are a million objects: to free them one by one takes half a
    second.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        sys.exit(status)  # Python says what it cannot write
    os._exit(status)
