#!/usr/bin/env bash
# finding: capstone's regs_access() leaves out registers that common x86 instructions write
# about: capstone 5.0.9 (PyPI; the library calls itself 5.0.7), x86-64
# expected: regs_access() gives what regs_read and regs_write miss, so it is enough to tell which registers
#     are live or must be saved; cmpxchg writes rax and the flags, as "add" is said to write the flags
# seen: cmpxchg writes nothing and xadd no flags (with or without lock, though the flag bits in the same
#     result's "eflags" are right); syscall does not write rcx and r11, xlatb and enter touch no register at
#     all, cmc and fcmovb do not read the flags, and fcmovb st(0), st(1) writes st(1)
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
"$work/venv/bin/pip" install -q --disable-pip-version-check capstone==5.0.9 >"$work/log" 2>&1 ||
    not_tried "pip could not install"

"$work/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import capstone
from capstone.x86 import X86_EFLAGS_MODIFY_ZF

decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
decoder.detail = True
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def access(code):
    insn = next(decoder.disasm(bytes.fromhex(code), 0x1000))
    reads, writes = (" ".join(sorted(map(insn.reg_name, regs))) or "-" for regs in insn.regs_access())
    return f"{insn.mnemonic} {insn.op_str}".strip(), f"reads {reads}, writes {writes}"


print("versions: capstone", version("capstone"), "library", capstone.__version__, "Python", sys.version.split()[0])
for code, described in (
    ("480103", "reads rax rbx, writes rflags"),  # add [rbx], rax: right
    ("480fb10b", "reads rax rbx rcx, writes -"),  # cmpxchg [rbx], rcx
    ("f0480fb10b", "reads rax rbx rcx, writes -"),  # lock cmpxchg [rbx], rcx
    ("480fc10b", "reads rbx rcx, writes rcx"),  # xadd [rbx], rcx
    ("f0480fc10b", "reads rbx rcx, writes rcx"),  # lock xadd [rbx], rcx
    ("0f05", "reads -, writes -"),  # syscall
    ("d7", "reads -, writes -"),  # xlatb
    ("c8100000", "reads -, writes -"),  # enter 16, 0
    ("f5", "reads -, writes rflags"),  # cmc
    ("dac1", "reads st(0), writes fpsw st(1)"),  # fcmovb st(0), st(1)
):
    now(*access(code), described)
insn = next(decoder.disasm(bytes.fromhex("480fb10b"), 0x1000))
now("eflags of cmpxchg says that ZF changes", bool(insn.eflags & X86_EFLAGS_MODIFY_ZF), True)
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
