#!/usr/bin/env bash
# finding: breakpoints of a debugger that died stay in QEMU's second vCPU, after a new one has connected
# about: QEMU 7.2's gdb stub (Debian 12's qemu-system-x86), TCG, two vCPUs
# expected: "?", the first request of a debugger that connects, makes QEMU drop all that an earlier client
#     has left, on all vCPUs: Z0 had set the breakpoint on all of them
# seen: it is dropped on the stub's current vCPU only. The guest stops at it on another vCPU, for a client that
#     set no breakpoint; with one vCPU, or where only the first one comes by, all is well
# needs: Debian 12, python3, a Debian mirror (15 MB); 40 s
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
import struct
import subprocess
import sys
import time
from pathlib import Path

WORK = Path(sys.argv[1])
LOAD, ENTRY, SECOND = 0x100000, 0x100020, 0x8000
COUNTS = 0xC000
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def store(addr, value):
    """mov dword ptr [addr], value"""
    return b"\xc7\x05" + struct.pack("<II", addr, value)


# The second vCPU, in real mode at SECOND: inc word ptr [COUNTS]; jmp to it.
LOOP = bytes.fromhex("ff0600c0 ebfa 0000")
SETUP = store(SECOND, int.from_bytes(LOOP[:4], "little")) + store(SECOND + 4, int.from_bytes(LOOP[4:], "little"))
# INIT and start-up interrupts, by the local APIC, to all but this vCPU.
SETUP += store(0xFEE00300, 0x000C4500) + store(0xFEE00300, 0x000C4600 | SECOND >> 12)
FIRST = ENTRY + len(SETUP)
# The first vCPU, in protected mode at FIRST: inc dword ptr [COUNTS + 4]; jmp to it.
CODE = SETUP + bytes.fromhex("ff0504c00000 ebf8")
MAGIC, FLAGS = 0x1BADB002, 0x10000  # a multiboot header with the addresses in it
HEADER = struct.pack("<8I", MAGIC, FLAGS, -(MAGIC + FLAGS) & 0xFFFFFFFF, LOAD, LOAD, 0, 0, ENTRY)


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


def connect(stub, vcpus):
    """A client of a guest in which all vCPUs have come to their loops."""
    for _ in range(30):
        client = Client(stub)
        client.first_request()
        counts = client.ask(b"m%x,8" % COUNTS)
        if counts[8:] != "00000000" and (vcpus == 1 or counts[:8] != "00000000"):
            return client
        client.ask(b"D")
        client.socket.close()
        time.sleep(0.5)
    print("result: not tried: the guest does not run")
    sys.exit(3)


def stops(vcpus, addr):
    """What happens to a client that connects after one that set a breakpoint and died, and lets the guest run."""
    (WORK / "kernel").write_bytes(HEADER + CODE)
    stub = WORK / f"stub-{vcpus}-{addr:x}"
    qemu = subprocess.Popen(
        [WORK / "qemu", "-smp", str(vcpus), "-m", "64", "-kernel", WORK / "kernel"]
        + ["-chardev", f"socket,id=stub,path={stub},server=on,wait=off", "-gdb", "chardev:stub"],
        stderr=subprocess.DEVNULL,
    )
    try:
        client = connect(stub, vcpus)
        assert client.ask(b"Z0,%x,1" % addr) == "OK"
        client.socket.close()
        time.sleep(0.5)
        client = Client(stub)
        client.first_request()
        client.send(b"c")
        return client.receive(3) or "runs"
    finally:
        qemu.terminate()
        qemu.wait()


now("one vCPU, breakpoint in the loop of the first", stops(1, FIRST), "runs")
now("two vCPUs, breakpoint in the loop of the first", stops(2, FIRST), "runs")
now("two vCPUs, breakpoint in the loop of the second", stops(2, SECOND), "T05thread:02;")
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
