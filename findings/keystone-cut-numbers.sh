#!/usr/bin/env bash
# finding: keystone cuts numbers that do not fit, and reports success
# about: keystone-engine 0.9.2 (PyPI) for x86-64; capstone 5.0.9 reads the bytes back
# expected: an immediate, a displacement or a branch that cannot be encoded is an error, as it is for
#     "add rax, 0x123456789", ".byte 300" and "call 0x200000000"
# seen: mov, push, displacements and branches across the 2 GiB limit (to an address that an unsigned or
#     wrapped 32-bit distance would reach) are encoded with the upper bits dropped; asm() raises nothing
# needs: Debian 12, python3-venv, PyPI; 10 s
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

python3 -m venv "$work/venv" >"$work/log" 2>&1 || not_tried "no virtual environment"
"$work/venv/bin/pip" install -q --disable-pip-version-check keystone-engine==0.9.2 capstone==5.0.9 >"$work/log" 2>&1 ||
    not_tried "pip could not install"

"$work/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import capstone
import keystone

KERNEL = 0xFFFFFFFF81000000
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def assembled(text, addr=0x1000):
    engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    try:
        code, _ = engine.asm(text, addr)
    except keystone.KsError:
        return "refused"
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return "; ".join(" ".join(insn[2:]) for insn in decoder.disasm_lite(bytes(code), addr))


packages = [f"{name} {version(name)}" for name in ("keystone-engine", "capstone")]
print("versions:", *packages, "Python", sys.version.split()[0])
for refused in ("add rax, 0x123456789", ".byte 300", "call 0x200000000"):
    now(refused, assembled(refused), "refused")
now("mov eax, 0x123456789", assembled("mov eax, 0x123456789"), "mov eax, 0x23456789")
now("mov byte ptr [rax], 0x1ff", assembled("mov byte ptr [rax], 0x1ff"), "mov byte ptr [rax], 0xff")
# Two bytes are pushed, not eight: the stack pointer is wrong as well.
now("push 0x123456789", assembled("push 0x123456789"), "push 0x6789")
now(
    "mov rax, [rbx + 0x123456789]",
    assembled("mov rax, [rbx + 0x123456789]"),
    "mov rax, qword ptr [rbx + 0x23456789]",
)
now("call 0x90000000 at 0x1000", assembled("call 0x90000000"), "call 0xffffffff90000000")
now(
    f"call 0xffffffff00000000 at {KERNEL:#x}",
    assembled("call 0xffffffff00000000", KERNEL),
    "call 0",
)
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
