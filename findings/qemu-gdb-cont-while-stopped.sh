#!/usr/bin/env bash
# finding: QEMU's gdb stub answers no packet whose first byte finds the guest running, unless that byte is 0x03
# about: QEMU 7.2's gdb stub (Debian 12's qemu-system-x86); the same in 11.1, where the stop packet is missing too
# expected: when somebody types "cont" in the monitor while a debugger has the guest stopped, the debugger's next
#     request is answered, refused, or answered by a stop packet, so that it can tell what happened
# seen: the first byte stops the guest and is dropped, and with it the request: there is a stop packet (since 8.1 nothing
#     at all), no acknowledgement and no reply; in a row of requests only the first is lost, and every reply seems to
#     belong to the request before it. With the byte 0x03 in front, which a stopped guest's stub ignores, nothing is lost.
# needs: Debian 12, python3, a Debian mirror (15 MB); 30 s
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
import socket
import subprocess
import sys
import time
from pathlib import Path

WORK = Path(sys.argv[1])
STUB = WORK / "stub"
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


class Client:
    """A client of the stub or of the monitor: it sends bytes and collects what comes."""

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


def words(data):
    """Acknowledgements, and packets without their checksums and the thread ids in them."""
    found = []
    while data:
        if data[:1] == b"$":
            text, _, rest = data[1:].partition(b"#")
            found.append(text.split(b"thread")[0].decode())
            data = rest[2:]
        else:
            found.append(data[:1].decode())
            data = data[1:]
    return " ".join(found)


qemu = subprocess.Popen(
    [WORK / "qemu", "-m", "64", "-monitor", f"unix:{WORK / 'monitor'},server=on,wait=off"]
    + ["-chardev", f"socket,id=stub,path={STUB},server=on,wait=off", "-gdb", "chardev:stub"],
    stderr=subprocess.DEVNULL,
)
try:
    monitor = Client(WORK / "monitor")
    stub = Client(STUB)
    stub.send(b"+" + packet(b"qSupported"))
    now("qC to a stopped guest", words(stub.send(b"+" + packet(b"qC"))), "+ QC01")
    now("the same after 0x03", words(stub.send(b"+\x03" + packet(b"qC"))), "+ QC01")
    stub.send(b"+")
    monitor.send(b"cont\n")
    now("qC after somebody's cont", words(stub.send(packet(b"qC"))), "T02")
    stub.send(b"+")
    monitor.send(b"cont\n")
    now("qC and then qAttached after it", words(stub.send(packet(b"qC") + packet(b"qAttached"))), "T02 + 1")
    stub.send(b"+")
    monitor.send(b"cont\n")
    now("0x03 and qC after it", words(stub.send(b"\x03" + packet(b"qC"))), "T02 + QC01")
finally:
    qemu.terminate()
    qemu.wait()
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
