#!/usr/bin/env bash
# finding: setting keystone's sym_resolver changes statements that use no symbol, and misses those that do
# about: keystone-engine 0.9.2 (PyPI), its Python binding; capstone 5.0.9 reads the bytes back
# expected: a resolver is asked for names that are not defined; numbers keep their meaning, and
#     a branch to a resolved name goes where the same branch to the number goes
# seen: with a resolver, digits without a prefix are read in base 16, and each operand that is relative
#     to the program counter ends 4 bytes after the address that the resolver gave
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

TARGET = 0x2000
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def resolver(name, value):
    if name == b"target":
        value[0] = TARGET
        return True
    return False


def assembled(text, *, resolving):
    engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    if resolving:
        engine.sym_resolver = resolver
    code, _ = engine.asm(text, 0x1000)
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return " ".join(next(decoder.disasm_lite(bytes(code), 0x1000))[2:])


packages = [f"{name} {version(name)}" for name in ("keystone-engine", "capstone")]
print("versions:", *packages, "Python", sys.version.split()[0])
now("mov eax, 10 (no resolver)", assembled("mov eax, 10", resolving=False), "mov eax, 0xa")
now("mov eax, 10 (resolver set)", assembled("mov eax, 10", resolving=True), "mov eax, 0x10")
now("call 0x2000 (resolver set)", assembled("call 0x2000", resolving=True), "call 0x2000")
now("call target", assembled("call target", resolving=True), "call 0x2004")
now("jne target", assembled("jne target", resolving=True), "jne 0x2004")
# The instruction ends at 0x1007: 0xff9 would be right.
now("lea rax, [rip + target]", assembled("lea rax, [rip + target]", resolving=True), "lea rax, [rip + 0xffd]")
now("mov eax, target", assembled("mov eax, target", resolving=True), "mov eax, 0x2000")
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
