#!/usr/bin/env bash
# finding: each pygdbmi command takes 0.2 s, however fast gdb is, and 0 s for the wait makes it a whole second
# about: pygdbmi 0.11.0.0 (PyPI), GdbController.write(); gdb 13.1 (Debian 12)
# expected: write() returns once the command's result record has come, in a few milliseconds here, and
#     time_to_check_for_additional_output_sec=0 means that no more is waited for
# seen: write() goes on reading until nothing has come for time_to_check_for_additional_output_sec, 0.2 by
#     default, though the result is there; 0 does not switch that off but waits for the whole timeout_sec
#     (1 by default); a tiny value such as 1e-6 is what gives the answer at once
# needs: Debian 12, python3-venv, PyPI, a Debian mirror (5 to 20 MB); 40 s
#
# Exits 0 when it is still so, 1 when it has changed, 3 when it could not be tried.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
sed -n '2,/^#$/s/^# //p' "$0"

not_tried() {
    [ ! -s "$work/log" ] || tail -n 5 "$work/log"
    echo "result: not tried: $*"
    exit 3
}

# unpack PACKAGE...: Debian packages, with those that they need and this machine lacks, into $work/root.
unpack() {
    mkdir -p "$work/debs/partial" "$work/lists/partial" "$work/root"
    set -- -q -y -o Debug::NoLocking=1 -o APT::Sandbox::User= -o "Dir::Cache::archives=$work/debs" \
        --no-install-recommends --download-only --reinstall install "$@"
    if ! apt-get "$@" >"$work/log" 2>&1; then
        # No package lists here, or lists that are too old: fetch them, but not for the machine.
        apt-get -q -o Debug::NoLocking=1 -o APT::Sandbox::User= -o "Dir::State::lists=$work/lists" update \
            >"$work/log" 2>&1 || not_tried "no package lists"
        apt-get -o "Dir::State::lists=$work/lists" "$@" >"$work/log" 2>&1 || not_tried "could not download packages"
    fi
    for deb in "$work"/debs/*.deb; do
        dpkg-deb -x "$deb" "$work/root"
    done
}

unpack gdb
python3 -m venv "$work/venv" >"$work/log" 2>&1 || not_tried "no virtual environment"
"$work/venv/bin/pip" install -q --disable-pip-version-check pygdbmi==0.11.0.0 >"$work/log" 2>&1 ||
    not_tried "pip could not install"
cat >"$work/gdb" <<SCRIPT
#!/bin/sh
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
exec $work/root/usr/bin/gdb --data-directory=$work/root/usr/share/gdb -nx -q "\$@"
SCRIPT
chmod +x "$work/gdb"

"$work/venv/bin/python" - "$work" <<'PYTHON'
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

from pygdbmi.gdbcontroller import GdbController

GDB = sys.argv[1] + "/gdb"
changed = []


def now(what, got, described):
    print(f"now: {what}: {got:.4f} s")
    low, high = described
    if not low <= got < high:
        changed.append(f"{what}: {got:.4f} s, was {low} to {high} s")


def median(**options):
    """The time of one command, in seconds."""
    controller = GdbController([GDB, "--interpreter=mi3"], **options)
    try:
        controller.write("-gdb-show version")  # reads what gdb says at its start
        times = []
        for _ in range(7):
            start = time.monotonic()
            records = controller.write("-data-evaluate-expression 6*7")
            times.append(time.monotonic() - start)
            assert any(record["payload"] == {"value": "42"} for record in records), records
    finally:
        controller.exit()
    return statistics.median(times)


gdb = subprocess.run([GDB, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
print("versions: pygdbmi", version("pygdbmi"), gdb, "Python", sys.version.split()[0])
now("a command, default", median(), (0.2, 0.5))
now("a command, 1e-6", median(time_to_check_for_additional_output_sec=1e-6), (0, 0.1))
now("a command, 0", median(time_to_check_for_additional_output_sec=0), (1, 1.5))
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
