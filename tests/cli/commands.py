"""Run the command line in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probekit.cli.main import main

__all__ = ("Result", "run")


@dataclass(frozen=True)
class Result:
    """What a command line did."""

    status: int
    out: str
    err: str


def run(capfd: Any, *argv: str, target: str = "none") -> Result:
    """``probekit -r none`` with these arguments."""
    capfd.readouterr()
    status = main(["-r", target, *argv])
    seen = capfd.readouterr()
    return Result(status, seen.out, seen.err)
