"""Build the slot that a vCPU is sent to instead of stepping over a probed instruction.

A slot is `instruction; nop; nop; jump back`. A REP string instruction is not copied whole: only its prefix is
emulated, and the processor executes one element after the other::

    L:   jrcxz out             e3 ..
         movsb                 a4                  one element, natively
         nop; nop              90 90
         lea rcx, [rcx - 1]    48 8d 49 ff         counts down and leaves the flags alone
         jne out               75 ..               cmps and scas only: repe ends here when they differ (repne: je)
         jmp L                 eb ..
    out: jmp to the next       e9 ....                the instruction after the original

Between two elements an interrupt, a page fault or a debugger finds RCX, RSI and RDI as the hardware would have left
them, and no element is done twice or skipped, even when an element crosses a page or a page is missing. A vCPU that
is not stopped after its single step runs the loop to its end and goes on after the original instruction.
"""

from __future__ import annotations

from typing import Final

from probekit.errors import InternalError
from probekit.isa.access import string_element
from probekit.isa.decode import decode_one
from probekit.isa.relocate import RelocateError, relocate
from probekit.patch.detours import copied_slot
from probekit.patch.sites import InsnSite, Site

__all__ = ("STEP_SLOT_SIZE", "repeat_slot", "step_slot")

STEP_SLOT_SIZE: Final = 64
"""Bytes of a slot's memory, enough for every slot."""

_ADDRESS_SIZE: Final = 0x67
_REPNE: Final = 0xF2
_COMPARES: Final = frozenset(("cmpsb", "cmpsw", "cmpsd", "cmpsq", "scasb", "scasw", "scasd", "scasq"))


def step_slot(site: Site, slot_addr: int) -> bytes:
    """Return code for ``slot_addr`` that does what the instruction at ``site`` does.

    Of an instruction site only the first instruction is copied, because a breakpoint replaces no more.
    Raises :class:`probekit.isa.relocate.RelocateError`.
    """
    if isinstance(site, InsnSite):
        first = decode_one(site.old, site.addr).raw
        repeated = repeat_slot(first, site.addr, slot_addr)
        code = repeated if repeated is not None else copied_slot(site._replace(old=first), slot_addr)
    else:
        code = copied_slot(site, slot_addr)
    if len(code) > STEP_SLOT_SIZE:
        raise InternalError("a slot is larger than its upper bound")
    return code


def repeat_slot(insn: bytes, addr: int, slot_addr: int) -> bytes | None:
    """Return the slot of a REP string instruction at ``addr``; None for any other. Raises :class:`RelocateError`."""
    element = string_element(insn)
    if element is None:
        return None
    prefixes = insn[:-1]  # the opcode of a string instruction is one byte, its last
    if _ADDRESS_SIZE in prefixes:
        raise RelocateError("it counts in ECX", addr=addr)
    # <element>; 90 90; 48 8d 49 ff      element; nop; nop; lea rcx, [rcx - 1]
    body = element + b"\x90\x90" + b"\x48\x8d\x49\xff"
    if decode_one(element, addr).mnemonic in _COMPARES:
        # 74 02 | 75 02                  je | jne over the jump back
        body += bytes((0x74 if _REPNE in prefixes else 0x75, 2))
    # e3 len; <body>; eb -len            jrcxz out; body; jmp L
    loop = bytes((0xE3, len(body) + 2)) + body + bytes((0xEB, (-len(body) - 4) & 0xFF))
    # e9 rel32                           jmp to the next instruction
    return loop + relocate(b"", addr + len(insn), slot_addr + len(loop)).code
