"""Runs the ``probekit`` command for ``python -m probekit``."""

from probekit.cli.main import run

if __name__ == "__main__":
    run()
