"""Describe a borrowed task on its own stack, so that it can be given back without the journal that has its call.

The journal may be on another host, or belong to another user. Then nobody else would know the task's registers, and it
would loop in the landing for ever. The bytes lie just above the stack pointer that the call returns with::

    magic     16 bytes
    purpose   u8        Allocate, GetModule, or anything else
    kind      u8        of Allocate: index of the kind of memory
    vcpu      u16
    crc       u32       CRC-32 of everything else
    operand   u64       of Allocate: bytes; of GetModule: address of the module
    registers 18 * u64  in the order of GENERAL_REGISTERS

The guest may forge them; then only a task of the guest itself gets other registers. They are read only where a task
stands in a landing, which no task of a kernel ever does by itself.
"""

from __future__ import annotations

import struct
import zlib

from probekit.guest.call_points import LANDING
from probekit.guest.calls import (
    GENERAL_REGISTERS,
    MEMORY_KINDS,
    Allocate,
    CallPurpose,
    GetModule,
    GuestCall,
    OtherCall,
)
from probekit.target.api import Target

__all__ = ("BORROWED_SIZE", "CALL_ROOM", "GIVEN_BACK", "borrowed_tasks", "decode_borrowed", "encode_borrowed")

_MAGIC = bytes.fromhex("9e 70 72 6f 62 65 6b 69 74 20 63 61 6c 6c 20 01")
_HEAD = struct.Struct("<16sBBHIQ")
_REGISTERS = struct.Struct(f"<{len(GENERAL_REGISTERS)}Q")
_KINDS = tuple(MEMORY_KINDS.values())
_OTHER, _ALLOCATE, _GET_MODULE = range(3)
_KERNEL = 1 << 63
_MAX_SIZE = 1 << 40
_MAX_VCPU = 1 << 16

BORROWED_SIZE = _HEAD.size + _REGISTERS.size
"""Bytes of the description."""
GIVEN_BACK = bytes.fromhex("9e 70 72 6f 62 65 6b 69 74 20 64 6f 6e 65 20 01")
"""What a recovery leaves in the place of the description, for whoever has the call in a journal."""
CALL_ROOM = 512
"""Bytes between the stack pointer after a call and that of the borrowed task: these bytes, and 256 that stay free."""


def encode_borrowed(call: GuestCall) -> bytes:
    """Return the bytes that describe a call, for the address ``call.rsp``."""
    purpose, kind, operand = _OTHER, 0, 0
    match call.purpose:
        case Allocate(name, size):
            purpose, kind, operand = _ALLOCATE, _KINDS.index(name), size
        case GetModule(module):
            purpose, operand = _GET_MODULE, module
    registers = _REGISTERS.pack(*(call.regs[name] for name in GENERAL_REGISTERS))
    vcpu = call.vcpu % _MAX_VCPU
    head = _HEAD.pack(_MAGIC, purpose, kind, vcpu, 0, operand)
    return _HEAD.pack(_MAGIC, purpose, kind, vcpu, zlib.crc32(head + registers), operand) + registers


def decode_borrowed(data: bytes, *, landing: int, rsp: int) -> GuestCall | None:
    """Return the call that :func:`encode_borrowed` has described at ``rsp``, or None for any other bytes."""
    if len(data) < BORROWED_SIZE or not data.startswith(_MAGIC):
        return None
    magic, purpose, kind, vcpu, crc, operand = _HEAD.unpack_from(data)
    registers = data[_HEAD.size : BORROWED_SIZE]
    if zlib.crc32(_HEAD.pack(magic, purpose, kind, vcpu, 0, operand) + registers) != crc:
        return None
    regs = dict(zip(GENERAL_REGISTERS, _REGISTERS.unpack(registers), strict=True))
    if not CALL_ROOM <= regs["rsp"] - rsp < CALL_ROOM + 16 or regs["rip"] < _KERNEL:
        return None
    what: CallPurpose = OtherCall()
    if purpose == _ALLOCATE:
        if kind >= len(_KINDS) or not 0 < operand < _MAX_SIZE:
            return None
        what = Allocate(_KINDS[kind], operand)
    elif purpose == _GET_MODULE:
        if operand < _KERNEL:
            return None
        what = GetModule(operand)
    return GuestCall(vcpu=vcpu, regs=regs, return_addr=landing, rsp=rsp, purpose=what)


def borrowed_tasks(target: Target) -> list[GuestCall]:
    """Return the calls of borrowed tasks that have returned and wait in a landing. The guest is stopped."""
    found: list[GuestCall] = []
    for vcpu in target.vcpus():
        regs = target.regs(vcpu)
        if regs.in_user_mode or regs["rsp"] < _KERNEL:
            continue
        code, data = target.read_many([(regs["rip"], len(LANDING)), (regs["rsp"], BORROWED_SIZE)])
        if code == LANDING and data is not None:
            call = decode_borrowed(data, landing=regs["rip"], rsp=regs["rsp"])
            if call is not None:
                found.append(call)
    return found
