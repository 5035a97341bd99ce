#!/usr/bin/env bash
# finding: QEMU ignores "stop" for a guest that a debugger has stopped, and no event of QMP tells that it was typed
# about: QEMU 7.2 (Debian 12's qemu-system-x86): do_vm_stop() in softmmu/cpus.c acts on a running machine only
# expected: an operator's "stop" is kept, so that the guest stays stopped when the debugger lets it run, or QMP has an
#     event (STOP) by which a debugger with a QMP connection can tell that somebody wants the guest to stay stopped
# seen: the command succeeds, the state is "paused" before and after it, there is no event, and the debugger's next
#     "continue" sets the guest running
# needs: Debian 12, python3, a Debian mirror (15 MB); 15 s
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

unpack qemu-system-x86 qemu-system-common qemu-system-data seabios
cat >"$work/qemu" <<SCRIPT
#!/bin/sh
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR=$work/root/usr/lib/x86_64-linux-gnu/qemu
exec timeout 60 $work/root/usr/bin/qemu-system-x86_64 -L $work/root/usr/share/qemu -L $work/root/usr/share/seabios \
    -nodefaults -no-user-config -display none -accel tcg "\$@"
SCRIPT
chmod +x "$work/qemu"
echo "versions: $("$work/qemu" --version | head -n 1), $(python3 --version)"

python3 - "$work" <<'PYTHON'
import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

WORK = Path(sys.argv[1])
STUB, QMP = WORK / "stub", WORK / "qmp"
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


class Client:
    """A client of the stub or of QMP: it sends bytes and collects what comes."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.socket.connect(str(path))
                break
            time.sleep(0.1)
        self.collect()

    def collect(self):
        """All that comes until half a second has passed in silence."""
        self.socket.settimeout(0.5)
        found = b""
        with contextlib.suppress(TimeoutError):
            while data := self.socket.recv(65536):
                found += data
        return found

    def send(self, data):
        self.socket.sendall(data)
        return self.collect()


def packet(text):
    return b"$%b#%02x" % (text, sum(text) & 255)


def said(data):
    """The answers and events of QMP, in a word each."""
    found = []
    for line in data.splitlines():
        answer = json.loads(line)
        value = answer.get("return")
        found.append(answer.get("event") or (value.get("status", "ok") if value is not None else "error"))
    return " ".join(found)


def command(name):
    return json.dumps({"execute": name}).encode() + b"\n"


qemu = subprocess.Popen(
    [WORK / "qemu", "-m", "64", "-qmp", f"unix:{QMP},server=on,wait=off"]
    + ["-chardev", f"socket,id=stub,path={STUB},server=on,wait=off", "-gdb", "chardev:stub"],
    stderr=subprocess.DEVNULL,
)
try:
    qmp = Client(QMP)
    qmp.send(command("qmp_capabilities"))
    now("QMP when nobody has stopped it", said(qmp.send(command("query-status"))), "running")
    stub = Client(STUB)
    stub.send(b"+" + packet(b"qSupported"))
    now("a debugger comes", said(qmp.collect()), "STOP")
    now("somebody's stop", said(qmp.send(command("stop"))), "ok")
    now("the state after it", said(qmp.send(command("query-status"))), "paused")
    stub.send(b"+" + packet(b"vCont;c"))
    now("the debugger continues", said(qmp.collect()), "RESUME")
    now("the state after that", said(qmp.send(command("query-status"))), "running")
finally:
    qemu.terminate()
    qemu.wait()
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
