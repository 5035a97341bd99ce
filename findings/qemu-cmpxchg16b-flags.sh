#!/usr/bin/env bash
# finding: QEMU's cmpxchg16b can replace the carry, parity, adjust and sign flags by bits of an earlier operand
# about: QEMU 7.2 (Debian 12's qemu-user and qemu-system-x86), TCG; mended in QEMU 8.0 by commit 5f0dd8cd33cb
#     (target/i386: Inline cmpxchg16b)
# expected: ZF says whether the values were equal, the other flags stay what the instruction before has made
#     them (Intel SDM, volume 2, CMPXCHG8B/CMPXCHG16B)
# seen: ZF is right. The others are the low bits of an operand of the last comparison, if popf, iret or an
#     interrupt loaded the flags shortly before and no branch came since; cmpxchg8b does the same. It hurts
#     whoever looks at the flags next, above all an interrupt that saves them: a Linux 6.12, whose allocator
#     uses cmpxchg16b, once died of a double fault with such flags while it patched its own code
# needs: Debian 12 on x86-64, python3, a Debian mirror (40 MB); 20 s
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

unpack qemu-user
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
"$work/root/usr/bin/qemu-x86_64" --version >"$work/version" 2>"$work/log" || not_tried "qemu-x86_64 does not start"
echo "versions: $(head -n 1 "$work/version"), $(python3 --version)"

python3 - "$work" <<'PYTHON'
import struct
import subprocess
import sys
from pathlib import Path

WORK = Path(sys.argv[1])
BASE = 0x400000
FLAGS = {0x01: "CF", 0x04: "PF", 0x10: "AF", 0x40: "ZF", 0x80: "SF"}
CMPXCHG16B, LOCK_CMPXCHG16B = "480fc70f", "f0480fc70f"  # cmpxchg16b [rdi]
CMPXCHG8B = "0fc70f"  # cmpxchg8b [rdi]
JMP = "eb00"  # to the next instruction
changed = []


def flags_after(*instructions):
    """The flags after "cmp 4, 7" and these instructions, in a program that has just loaded its flags."""
    code = bytes.fromhex(
        "488d7c24c0 4883e7f0"  # lea rdi, [rsp-64]; and rdi, -16
        "31c0 31d2 31db 31c9"  # xor eax, eax; the same with edx, ebx, ecx
        "488907 48894708"  # mov [rdi], rax; mov [rdi+8], rax
        "be04000000 41b807000000"  # mov esi, 4; mov r8d, 7
        "9c 9d"  # pushf; popf
        "4439c6"  # cmp esi, r8d
        + "".join(instructions)
        + "9c 5f"  # pushf; pop rdi
        "81e7ff000000"  # and edi, 0xff
        "b83c000000 0f05"  # exit(edi)
    )
    # A program of one segment, which is the whole file: ELF header, program header, code.
    start, size = 64 + 56, 64 + 56 + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    program = WORK / "program"
    program.write_bytes(identity + header + segment + code)
    program.chmod(0o755)
    done = subprocess.run([WORK / "root/usr/bin/qemu-x86_64", program], timeout=30, check=False)
    if not done.returncode & 2:  # bit 1 of the flags is always set
        print(f"result: not tried: exit status {done.returncode}")
        sys.exit(3)
    return " ".join(name for bit, name in FLAGS.items() if done.returncode & bit)


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


now("cmp", flags_after(), "CF AF SF")
now("cmp, jmp, cmpxchg16b of equal values", flags_after(JMP, CMPXCHG16B), "CF AF ZF SF")
now("cmp, cmpxchg16b of equal values", flags_after(CMPXCHG16B), "CF PF ZF")
now("cmp, lock cmpxchg16b of equal values", flags_after(LOCK_CMPXCHG16B), "CF PF ZF")
now("cmp, cmpxchg8b of equal values", flags_after(CMPXCHG8B), "CF PF ZF")
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
