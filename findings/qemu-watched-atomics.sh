#!/usr/bin/env bash
# finding: QEMU's access watchpoint does not see the atomic instructions that its write watchpoint sees
# about: QEMU 7.2 (Debian 12's qemu-system-x86), TCG, two vCPUs; Z2 to Z4 of its gdb stub, gdb's watch, rwatch, awatch
# expected: awatch stops the guest wherever watch does, and for reads besides
# seen: with two vCPUs "lock inc", "lock xadd" and "xchg" on the watched word stop the guest for watch, but not
#     for awatch, nor for watch and rwatch set together: the word changes and nothing is said. Plain
#     instructions stop it, and so do atomic ones in a guest with one vCPU
# needs: Debian 12, python3, a Debian mirror (15 MB); 60 s
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
import itertools
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

WORK = Path(sys.argv[1])
LOAD, WORD = 0x100000, 0x200000
WATCH, RWATCH, AWATCH = (b"Z%d,%x,4" % (kind, WORD) for kind in (2, 3, 4))
MAGIC, FLAGS = 0x1BADB002, 0x10000  # a multiboot header with the addresses in it
HEADER = struct.pack("<8I", MAGIC, FLAGS, -(MAGIC + FLAGS) & 0xFFFFFFFF, LOAD, LOAD, 0, 0, LOAD + 32)
INC, LOCK_INC = "ff0500002000", "f0ff0500002000"  # inc dword ptr [WORD]
LOCK_XADD = "f00fc10500002000"  # lock xadd [WORD], eax
XCHG = "40 870500002000"  # inc eax; xchg [WORD], eax
numbers = itertools.count()
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
        """Ask "?" and drop the stop packet that may come unasked."""
        self.send(b"?")
        while self.receive(1):
            pass

    def ask(self, packet):
        self.send(packet)
        return self.receive(10)


def connect(stub):
    """A client of a guest that has come to its loop."""
    for _ in range(30):
        client = Client(stub)
        client.first_request()
        if client.ask(b"m%x,4" % WORD) != "00000000":
            return client
        client.ask(b"D")
        client.socket.close()
        time.sleep(0.5)
    print("result: not tried: the guest does not run")
    sys.exit(3)


def watched(vcpus, code, *points):
    """What a loop of this code does to a guest whose word is watched."""
    body = bytes.fromhex(code)
    (WORK / "kernel").write_bytes(HEADER + body + b"\xeb" + struct.pack("b", -len(body) - 2))
    stub = WORK / f"stub-{next(numbers)}"
    qemu = subprocess.Popen(
        [WORK / "qemu", "-smp", str(vcpus), "-m", "64", "-kernel", WORK / "kernel"]
        + ["-chardev", f"socket,id=stub,path={stub},server=on,wait=off", "-gdb", "chardev:stub"],
        stderr=subprocess.DEVNULL,
    )
    try:
        client = connect(stub)
        assert [client.ask(point) for point in points] == ["OK"] * len(points)
        before = client.ask(b"m%x,4" % WORD)
        client.send(b"c")
        if client.receive(3):
            return "stops"
        client.socket.sendall(b"\x03")
        client.receive(10)
        return "changes unseen" if client.ask(b"m%x,4" % WORD) != before else "does not change"
    finally:
        qemu.terminate()
        qemu.wait()


now("2 vCPUs, inc, awatch", watched(2, INC, AWATCH), "stops")
now("2 vCPUs, lock inc, watch", watched(2, LOCK_INC, WATCH), "stops")
now("2 vCPUs, lock inc, awatch", watched(2, LOCK_INC, AWATCH), "changes unseen")
now("2 vCPUs, lock inc, watch and rwatch", watched(2, LOCK_INC, WATCH, RWATCH), "changes unseen")
now("2 vCPUs, lock xadd, awatch", watched(2, LOCK_XADD, AWATCH), "changes unseen")
now("2 vCPUs, xchg, watch", watched(2, XCHG, WATCH), "stops")
now("2 vCPUs, xchg, awatch", watched(2, XCHG, AWATCH), "changes unseen")
now("1 vCPU, lock inc, awatch", watched(1, LOCK_INC, AWATCH), "stops")
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
