"""Without a guest nothing of a guest is imported: that is what makes the start quick."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
from probekit.cli.main import main
main(["-r", "none", "-q", "-n", 'BEGIN { @ = count(); printf("%d", 1); exit(0); }'])
print("\\n", *sorted(sys.modules))
"""
_VERSION = """
import sys
from probekit.cli.main import main
main(["-V"])
print("\\n", *sorted(sys.modules))
"""
_OF_A_GUEST = ("codegen", "guest", "isa", "kernel", "patch", "target")
_SLOW = ("capstone", "elftools", "iced_x86", "keystone", "psutil", "pygdbmi", "qemu", "socket", "subprocess")


def test_no_module_of_a_guest_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    modules = done.stdout.split()
    assert "probekit.interp.run" in modules
    assert [m for m in modules if m.startswith(tuple(f"probekit.{p}." for p in _OF_A_GUEST))] == []
    assert [m for m in _SLOW if m in modules] == []


def test_the_version_needs_no_parser() -> None:
    done = subprocess.run([sys.executable, "-c", _VERSION], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("probekit: version ")
    modules = done.stdout.split()
    assert "probekit.cli.main" in modules
    assert [m for m in modules if m.startswith(("lark", "probekit.lang.parse"))] == []
