"""Calls the command, and turns every error into a message and an exit status."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

from probekit.cli.args import HelpWanted, UsageError, parse
from probekit.errors import ProbekitError
from probekit.output.streams import ProcessOutput, begin_output, fill_descriptors

__all__ = ("main", "run")


def main(argv: list[str]) -> int:
    """Run a command line. Returns the exit status. No error is shown as a traceback."""
    output = begin_output()
    try:
        return output.finish(_run_command(argv, output))
    except KeyboardInterrupt:
        output.abandon()
        return 130
    except Exception:
        output.abandon()
        raise


def _run_command(argv: list[str], output: ProcessOutput) -> int:
    """Run a command line, and write what went wrong. Returns the exit status."""
    try:
        return _dispatch(argv, output)
    except HelpWanted as wanted:
        output.out.write(str(wanted))
        return 0
    except UsageError as error:
        usage = f"\n{error.usage.rstrip()}" if error.usage else ""
        output.say(f"probekit: {error}{usage}\nTry `probekit --help`.\n")
        return 2
    except BrokenPipeError:
        return 0  # the reader of our output has closed it; the guest has been restored already
    except ProbekitError as error:
        output.out.flush()
        lines = [error.message, *getattr(error, "__notes__", ()), *([f"hint: {error.hint}"] if error.hint else ())]
        output.say("".join(f"probekit: {line}\n" for line in lines))
        return error.exit_code


def _dispatch(argv: list[str], output: ProcessOutput) -> int:
    command, arguments = parse(argv)
    if command == "recover":
        from probekit.cli.recover import recover_command

        return recover_command(arguments)
    if arguments.version:
        from importlib.metadata import version

        from probekit.cli.cpp import D_VERSION

        language = ".".join(map(str, D_VERSION[:2]))
        output.out.write(f"probekit: version {version('probekit')}, D {language}\n")
        return 0
    from probekit.cli.trace import trace

    return trace(arguments)


def run() -> None:
    """Run the ``probekit`` command and end the process."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A kernel's symbols are a million small objects that are never freed. To search them for garbage would take a
    # fifth of the time until tracing starts.
    gc.set_threshold(2_000_000, 20, 20)
    fill_descriptors()
    try:
        status = main(sys.argv[1:])
    except Exception as error:
        if os.environ.get("PROBEKIT_DEBUG"):
            raise
        output = begin_output()
        output.say(f"probekit: internal error: {type(error).__name__}: {error}; PROBEKIT_DEBUG=1 shows where\n")
        status = output.finish(1)
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
