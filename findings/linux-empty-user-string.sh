#!/usr/bin/env bash
# finding: an empty string of a user program is shown as (fault) by Linux's kprobe events
# about: Linux 6.1 and 6.12, Debian 12's kernels for clouds; tracefs, kprobe_events, types ustring and string
# expected: a probe on do_sys_openat2 that fetches the path shows u="" for open(""), as it shows u="/nowhere";
#     (fault) is for memory that cannot be read
# seen: the empty path is readable (the program is told ENOENT, not EFAULT) and yet shown as (fault), by
#     ustring and by string, so that an empty argument and a bad pointer look the same
# needs: Debian 12, python3, a Debian mirror (80 MB); 90 s
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

apt=(-q -o Debug::NoLocking=1 -o APT::Sandbox::User=)
mkdir -p "$work/debs/partial" "$work/lists/partial" "$work/root"

# unpack PACKAGE...: Debian packages, with those that they need and this machine lacks, into $work/root.
unpack() {
    set -- -y -o "Dir::Cache::archives=$work/debs" --no-install-recommends --download-only --reinstall install "$@"
    if ! apt-get "${apt[@]}" "$@" >"$work/log" 2>&1; then
        # No package lists here, or lists that are too old: fetch them, but not for the machine.
        apt+=(-o "Dir::State::lists=$work/lists")
        apt-get "${apt[@]}" update >"$work/log" 2>&1 || not_tried "no package lists"
        apt-get "${apt[@]}" "$@" >"$work/log" 2>&1 || not_tried "could not download packages"
    fi
    for deb in "$work"/debs/*.deb; do
        dpkg-deb -x "$deb" "$work/root"
    done
}

# unpack_kernel METAPACKAGE: the kernel that it stands for, alone, as $work/METAPACKAGE/boot/vmlinuz-*.
unpack_kernel() {
    image=$(apt-cache "${apt[@]}" depends --important "$1" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
    mkdir "$work/$1"
    (cd "$work/$1" && apt-get "${apt[@]}" download "$image") >"$work/log" 2>&1 ||
        not_tried "could not download $1: ${image:-no such kernel}"
    dpkg-deb -x "$work/$1"/*.deb "$work/$1"
}

unpack qemu-system-x86 qemu-system-common qemu-system-data seabios busybox-static
unpack_kernel linux-image-cloud-amd64
unpack_kernel linux-image-6.12-cloud-amd64
cat >"$work/qemu" <<SCRIPT
#!/bin/sh
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR=$work/root/usr/lib/x86_64-linux-gnu/qemu
exec timeout 90 $work/root/usr/bin/qemu-system-x86_64 -L $work/root/usr/share/qemu -L $work/root/usr/share/seabios \
    -nodefaults -no-user-config -display none -accel tcg "\$@"
SCRIPT
chmod +x "$work/qemu"
echo "versions: $("$work/qemu" --version | head -n 1)"

cat >"$work/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t tracefs trace /sys/kernel/tracing
cd /sys/kernel/tracing
echo "release $(/bin/busybox uname -r)"
echo 'p:opened do_sys_openat2 u=+0(%si):ustring k=+0(%si):string' >kprobe_events
echo 1 >events/kprobes/opened/enable
/bin/busybox cat /nowhere
/bin/busybox cat ''
echo 0 >events/kprobes/opened/enable
/bin/busybox grep opened: trace
echo end
/bin/busybox poweroff -f
INIT

python3 - "$work" <<'PYTHON'
import re
import subprocess
import sys
from pathlib import Path

WORK = Path(sys.argv[1])
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def archive(files):
    """An initramfs: cpio's "newc" form."""
    data = b""
    for name, mode, content in (*files, ("TRAILER!!!", 0, b"")):
        fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        data += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        data += b"\0" * (-len(data) % 4) + content
        data += b"\0" * (-len(data) % 4)
    return data


(busybox,) = (path for path in (WORK / "root/bin/busybox", WORK / "root/usr/bin/busybox") if path.exists())
(WORK / "initramfs").write_bytes(
    archive(
        [
            ("bin", 0o40755, b""),
            ("bin/busybox", 0o100755, busybox.read_bytes()),
            ("init", 0o100755, (WORK / "init").read_bytes()),
        ]
    )
)
for kernel in sorted(WORK.glob("linux-image-*/boot/vmlinuz-*")):
    console = subprocess.run(
        [WORK / "qemu", "-cpu", "max", "-m", "512", "-no-reboot", "-serial", "stdio", "-kernel", kernel]
        + ["-initrd", WORK / "initramfs", "-append", "console=ttyS0 loglevel=3 rdinit=/init panic=-1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ).stdout
    release = re.search(r"^release (\S+)", console, re.MULTILINE)
    if release is None or not re.search(r"^end", console, re.MULTILINE):
        print(console[-2000:])
        print("result: not tried: the guest did not come to its end")
        sys.exit(3)
    opened = re.findall(r"busybox-\d+ .*opened: .* u=(.*) k=(.*?)\r?$", console, re.MULTILINE)
    refused = re.findall(r"can't open '': (.*?)\r?$", console, re.MULTILINE)
    now(f"{release[1]}: cat ''", refused, ["No such file or directory"])
    now(f"{release[1]}: ustring, string", opened, [('"/nowhere"', '"/nowhere"'), ("(fault)", "(fault)")])
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
