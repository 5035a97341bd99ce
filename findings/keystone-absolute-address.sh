#!/usr/bin/env bash
# finding: for keystone, the address in "mov rbx, [0x2000]" is a distance from the next instruction
# about: keystone-engine 0.9.2 (PyPI) for x86-64, Intel syntax; capstone 5.0.9 reads the bytes back
# expected: [0x2000] and gs:[0x28] name that address, whatever the register or the instruction
# seen: they do for rax (absolute), and for ebx, add, lea and a store (RIP-relative, the distance worked
#     out); where mov loads any other 64-bit register the number itself becomes the distance, so that what
#     is read moves with the code, and gs:[0x28], the usual way to per-CPU data, becomes gs:[rip + 0x28]
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
from capstone.x86 import X86_OP_MEM, X86_REG_RIP

changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def address(text, addr):
    """The address, less the segment's base, that the assembled instruction uses."""
    engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    code, _ = engine.asm(text, addr)
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    insn = next(decoder.disasm(bytes(code), addr))
    (memory,) = (operand.mem for operand in insn.operands if operand.type == X86_OP_MEM)
    return hex(memory.disp + (insn.address + insn.size if memory.base == X86_REG_RIP else 0))


packages = [f"{name} {version(name)}" for name in ("keystone-engine", "capstone")]
print("versions:", *packages, "Python", sys.version.split()[0])
RIGHT = ("mov rax, [0x2000]", "mov ebx, [0x2000]", "add rbx, [0x2000]", "lea rbx, [0x2000]", "mov [0x2000], rbx")
for operation in RIGHT:
    now(f"{operation} at 0x1000 uses", address(operation, 0x1000), "0x2000")
for register in ("rbx", "rcx", "r8"):
    now(f"mov {register}, [0x2000] at 0x1000 uses", address(f"mov {register}, [0x2000]", 0x1000), "0x3007")
now("mov rbx, [0x2000] at 0x9000 uses", address("mov rbx, [0x2000]", 0x9000), "0xb007")
now("mov rax, gs:[0x28] at 0x1000 uses gs +", address("mov rax, gs:[0x28]", 0x1000), "0x28")
now("mov rbx, gs:[0x28] at 0x1000 uses gs +", address("mov rbx, gs:[0x28]", 0x1000), "0x1030")
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
