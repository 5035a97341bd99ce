"""Runs the ``probekit`` command, for ``python -m probekit`` as well."""

import signal

__all__ = ("run",)


def run() -> None:
    """Run the command and end the process.

    While its modules are imported, Ctrl-C ends the process as it ends any other: without a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from probekit.cli.main import run as run_command

    run_command()


if __name__ == "__main__":
    run()
