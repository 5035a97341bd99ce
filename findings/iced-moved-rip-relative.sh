#!/usr/bin/env bash
# finding: iced's BlockEncoder moves a RIP-relative data address too, where it hits the start of an instruction
# about: iced-x86 1.21.0 (PyPI), BlockEncoder, x86-64
# expected: code moved by BlockEncoder does what it did: its own branches follow the move, and an
#     address that is taken or read (lea, mov) still names the original bytes
# seen: "lea rax, [rip]", whose address is the next instruction of the block, gives the address in the copy;
#     with an address one byte further on (or past the block) the displacement is mended and it gives the
#     original. A copy of code that reads or compares its own address, as kernels do, changes its meaning
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
"$work/venv/bin/pip" install -q --disable-pip-version-check iced-x86==1.21.0 >"$work/log" 2>&1 ||
    not_tried "pip could not install"

"$work/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

from iced_x86 import BlockEncoder, Decoder

FROM, TO = 0x1000, 0x9000
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def moved(code):
    """The address that the first instruction uses at its new place."""
    encoder = BlockEncoder(64)
    for insn in Decoder(64, bytes.fromhex(code), ip=FROM):
        encoder.add(insn)
    return hex(next(iter(Decoder(64, encoder.encode(TO), ip=TO))).ip_rel_memory_address)


NEXT = "4889c0 c3"  # mov rax, rax; ret: at 0x1007 and 0x100a
print("versions: iced-x86", version("iced-x86"), "Python", sys.version.split()[0])
now("lea rax, [0x1007], the mov's first byte, moved to 0x9000, uses", moved("488d0500000000" + NEXT), "0x9007")
now("lea rax, [0x1008], the mov's second byte, uses", moved("488d0501000000" + NEXT), "0x1008")
now("lea rax, [0x100a], the ret, uses", moved("488d0503000000" + NEXT), "0x900a")
now("lea rax, [0x100b], after the block, uses", moved("488d0504000000" + NEXT), "0x100b")
now("mov rax, [0x1000], its own first byte, uses", moved("488b05f9ffffff" + NEXT), "0x9000")
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
