#!/usr/bin/env bash
# finding: writing back by "G" exactly what "g" gave changes control registers
# about: QEMU 7.2's gdb stub for x86-64 (Debian 12's qemu-system-x86)
# expected: the gdb manual says that "G" takes registers as "g" gives them, so that what was read can be written back,
#     and a debugger that changes one register that way leaves all the others as they are
# seen: "g", "G" with the same bytes, "g": CR0 and CR4 differ, as the writer counts fewer bytes for some registers than
#     the reader. A running kernel loses protections that it relies on. "P", one register at a time, is right.
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


def reply(data):
    return data.partition(b"$")[2].partition(b"#")[0]


qemu = subprocess.Popen(
    [WORK / "qemu", "-m", "64"]
    + ["-chardev", f"socket,id=stub,path={STUB},server=on,wait=off", "-gdb", "chardev:stub"],
    stderr=subprocess.DEVNULL,
)
try:
    time.sleep(1)
    stub = Client(STUB)
    stub.send(b"+" + packet(b"qSupported"))
    before = reply(stub.send(b"+" + packet(b"g")))
    now("bytes of registers", len(before) // 2, 608)
    now("g again", "the same" if reply(stub.send(b"+" + packet(b"g"))) == before else "different", "the same")
    now("G with these bytes", reply(stub.send(b"+" + packet(b"G" + before))).decode(), "OK")
    after = reply(stub.send(b"+" + packet(b"g")))
    now("g after that", "the same" if after == before else "different", "different")
    places = [at for at in range(len(before) // 2) if before[2 * at : 2 * at + 2] != after[2 * at : 2 * at + 2]]
    now("the general registers (bytes 0 to 163)", [at for at in places if at < 164], [])
    now("the control registers (bytes 188 to 227)", any(188 <= at < 228 for at in places), True)
finally:
    qemu.terminate()
    qemu.wait()
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
