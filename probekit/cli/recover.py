"""Carries out ``probekit recover``."""

from __future__ import annotations

import json
from dataclasses import asdict

from probekit.cli.args import Arguments, UsageError
from probekit.cli.progress import Progress
from probekit.cli.target import NO_GUEST, attach_options, found_guest, target_of
from probekit.output.streams import process_output
from probekit.session.recover import Recovered, recover

__all__ = ("recover_command",)


def recover_command(arguments: Arguments) -> int:
    """Restore a guest, and print what was done. Returns the exit status: 1 when something could not be restored."""
    spec = target_of(arguments) or found_guest(quiet=arguments.json)
    if spec == NO_GUEST:
        raise UsageError("-r none names no guest to recover")
    progress = Progress(verbose=arguments.verbose, silent=arguments.json)
    done = recover(spec, attach_options(arguments, progress))
    progress.done()
    out = process_output().out
    if arguments.json:
        out.write(json.dumps({"type": "recovered", "clean": done.clean, **asdict(done)}) + "\n")
    else:
        for line in _lines(done):
            out.write(f"probekit: {line}\n")
    out.flush()
    return 1 if done.problems else 0


def _lines(done: Recovered) -> list[str]:
    """Return the lines of the report for people."""
    if done.clean:
        return ["nothing to recover: no probekit left anything in this guest"]
    lines: list[str] = []
    if done.rebooted:
        lines.append(f"{done.rebooted} journal(s) of a guest that has rebooted since: there is nothing to restore")
    if done.gone:
        lines.append(
            f"{done.gone} journal(s) of probes that are gone from this guest: somebody else has recovered it, or a "
            f"snapshot was loaded; {done.already} sites have their original bytes"
        )
    if done.journals > done.rebooted + done.gone:
        lines.append(f"{done.restored} sites restored, {done.already} had their original bytes already")
        if done.tasks:
            lines.append(f"{done.tasks} borrowed task(s) given back")
        lines.append(f"{done.freed} bytes of guest memory freed")
    lines += [f"could not be restored: {problem}" for problem in done.problems]
    return lines
