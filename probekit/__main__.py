"""``python -m probekit`` is ``probekit``."""

from probekit.cli.main import run

if __name__ == "__main__":
    run()
