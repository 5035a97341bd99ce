"""Without a guest nothing of a guest is imported: that is what makes the start quick."""

from __future__ import annotations

import signal
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


_INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "probekit.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from probekit.__main__ import run
run()
"""


def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_word() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
