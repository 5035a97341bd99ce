#!/usr/bin/env bash
# finding: QEMU's gdb stub goes on speaking "multiprocess" to a new client, since an earlier one asked for it
# about: QEMU 7.2's gdb stub (Debian 12's qemu-system-x86)
# expected: what a client offers in qSupported holds for its connection; the next one that does not offer
#     "multiprocess+" gets plain thread ids, and a bare "D" lets the guest go
# seen: after one client with multiprocess+, all later ones get ids such as p01.01, and "D" is an error
#     (E22) that leaves the guest stopped, until the process is named ("D;1"), for as long as QEMU runs
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
    """The plainest client of a gdb stub."""

    def __init__(self, path):
        self.received = b""
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.socket.connect(str(path))
                break
            time.sleep(0.1)

    def send(self, packet):
        self.socket.sendall(b"$%b#%02x" % (packet, sum(packet) & 255))

    def receive(self, seconds):
        """The next packet, or None when none has come by then."""
        self.socket.settimeout(seconds)
        while True:
            packet, end, rest = self.received.partition(b"$")[2].partition(b"#")
            if end and len(rest) >= 2:
                self.received = rest[2:]
                self.socket.sendall(b"+")
                return packet.decode()
            try:
                more = self.socket.recv(4096)
            except TimeoutError:
                return None
            if not more:
                raise ConnectionError("QEMU has ended")
            self.received += more

    def first_request(self):
        """Ask "?". Whether the guest ran before this client stopped it: a stop packet then comes unasked, too."""
        self.send(b"?")
        packets = 0
        while self.receive(1):
            packets += 1
        return packets > 1

    def ask(self, packet):
        self.send(packet)
        return self.receive(10)


def session(*packets):
    """Whether the guest ran until then, and the replies that one client gets."""
    client = Client(STUB)
    ran = client.first_request()
    replies = [client.ask(packet) for packet in packets]
    client.socket.close()
    time.sleep(0.5)
    return "running" if ran else "stopped", replies


qemu = subprocess.Popen(
    [WORK / "qemu", "-S", "-m", "64"]
    + ["-chardev", f"socket,id=stub,path={STUB},server=on,wait=off", "-gdb", "chardev:stub"],
    stderr=subprocess.DEVNULL,
)
try:
    state, (_, *replies) = session(b"qSupported", b"qC", b"D")
    now("a client without multiprocess: qC, D", replies, ["QC01", "OK"])
    state, (_, *replies) = session(b"qSupported:multiprocess+", b"qC", b"D;1")
    now("the guest after that", state, "running")
    now("one with it: qC, D;1", replies, ["QCp01.01", "OK"])
    state, (_, *replies) = session(b"qSupported", b"qC", b"D")
    now("the guest after that", state, "running")
    now("one without it: qC, D", replies, ["QCp01.01", "E22"])
    state, replies = session(b"D", b"D;1")
    now("the guest after that", state, "stopped")
    now("one more without it: D, D;1", replies, ["E22", "OK"])
finally:
    qemu.terminate()
    qemu.wait()
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
