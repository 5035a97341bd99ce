#!/usr/bin/env bash
# finding: unicorn maps memory at a kernel's addresses and cannot execute or read it
# about: unicorn 2.1.4 (PyPI), UC_MODE_64
# expected: what mem_map() and mem_write() accept and mem_read() gives back, code at that address can be
#     executed from and loads can read, at 0xffffffff81000000 as at 0x400000
# seen: execution and loads at 2**52 and above fail as unmapped (a hook is told the address without
#     its upper 12 bits) unless ctl_set_tlb_mode(UC_TLB_VIRTUAL) was called first
# needs: Debian 12, python3-venv, PyPI; 15 s
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
"$work/venv/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$work/log" 2>&1 ||
    not_tried "pip could not install"

"$work/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import unicorn
from unicorn.x86_const import UC_X86_REG_RAX, UC_X86_REG_RBX

CODE = 0x10000
KERNEL = 0xFFFFFFFF81000000
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def machine(virtual, addr, content):
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    if virtual:
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
    uc.mem_map(addr, 0x1000)
    uc.mem_write(addr, content)
    assert uc.mem_read(addr, len(content)) == content
    return uc


def executed(addr, virtual=False):
    code = bytes.fromhex("b82a000000")  # mov eax, 42
    uc = machine(virtual, addr, code)
    try:
        uc.emu_start(addr, addr + len(code))
    except unicorn.UcError as error:
        return str(error)
    return uc.reg_read(UC_X86_REG_RAX)


def loaded(addr, virtual=False):
    uc = machine(virtual, addr, (42).to_bytes(8, "little"))
    uc.mem_map(CODE, 0x1000)
    uc.mem_write(CODE, bytes.fromhex("488b03"))  # mov rax, [rbx]
    uc.reg_write(UC_X86_REG_RBX, addr)
    told = []
    uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, lambda uc, access, at, size, value, user: told.append(hex(at)))
    try:
        uc.emu_start(CODE, CODE + 3)
    except unicorn.UcError:
        return f"unmapped at {told[0]}"
    return uc.reg_read(UC_X86_REG_RAX)


print("versions: unicorn", version("unicorn"), "Python", sys.version.split()[0])
for addr in (0x400000, (1 << 52) - 0x1000):
    now(f"code at {addr:#x}", executed(addr), 42)
for addr in (1 << 52, KERNEL):
    now(f"code at {addr:#x}", executed(addr), "Invalid memory fetch (UC_ERR_FETCH_UNMAPPED)")
now(f"a load from {KERNEL:#x}", loaded(KERNEL), "unmapped at 0xfffff81000000")
now(f"code at {KERNEL:#x} with UC_TLB_VIRTUAL", executed(KERNEL, virtual=True), 42)
now(f"a load from {KERNEL:#x} with UC_TLB_VIRTUAL", loaded(KERNEL, virtual=True), 42)
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
