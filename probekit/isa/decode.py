"""Decode x86-64: facts about one instruction, and a fast scan of a whole function.

iced does the work; capstone only cross-checks it in the tests.

- :func:`decode_one` and :func:`decode_run` build an :class:`Insn` for each
  instruction, for the few that are examined closely.
- :func:`scan_flow` walks a function and keeps only what moves control. It
  builds no object for an ordinary instruction, because the exits of 44,000
  functions (2.6 million instructions) must be found in a second.

The *flow* of an instruction is where control can go after it::

    next           48 89 e5           mov rbp, rsp       the following instruction only
    jump           e9 ....            jmp rel32          the target only
    cond           0f 84 .... / e2 .. je rel32, loop     the target or the next
    call           e8 ....            call rel32         the target, then the next
    ret            c3 / c2 08 00      ret                the caller
    indirect_jump  ff e0              jmp rax            unknown
    indirect_call  ff d0              call rax           unknown, then the next
    trap           cc / cd 80 / 0f 0b int3, int n, ud2   an exception handler
    system         48 cf / 0f 07      iret, sysret, ...  another privilege level or far segment
    undefined      06                 (bad)              not an instruction
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from iced_x86 import Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic

from probekit.errors import ProbekitError

__all__ = (
    "ENDBR64",
    "NOP5",
    "DecodeError",
    "Flow",
    "FlowExit",
    "FlowScan",
    "Insn",
    "decode_one",
    "decode_run",
    "instruction_starts",
    "mnemonic_name",
    "scan_flow",
)

NOP5 = b"\x0f\x1f\x44\x00\x00"  # nop dword ptr [rax+rax]: ftrace's pad
ENDBR64 = b"\xf3\x0f\x1e\xfa"  # endbr64

Flow = Literal["next", "jump", "cond", "call", "ret", "indirect_jump", "indirect_call", "trap", "system", "undefined"]

_FLOWS: dict[int, Flow] = {
    FlowControl.NEXT: "next",
    FlowControl.UNCONDITIONAL_BRANCH: "jump",
    FlowControl.INDIRECT_BRANCH: "indirect_jump",
    FlowControl.CONDITIONAL_BRANCH: "cond",
    FlowControl.RETURN: "ret",
    FlowControl.CALL: "call",
    FlowControl.INDIRECT_CALL: "indirect_call",
    FlowControl.INTERRUPT: "trap",
    FlowControl.XBEGIN_XABORT_XEND: "cond",
    FlowControl.EXCEPTION: "trap",
}
_PLAIN_RET = frozenset({Code.RETNQ, Code.RETNQ_IMM16})
# iced calls SYSCALL, VMCALL and similar ones "calls"; none has a target.
_NEAR_CALL = frozenset({Code.CALL_REL32_64, Code.CALL_RM64})
_FAR_JUMP = frozenset({Code.JMP_M1616, Code.JMP_M1632, Code.JMP_M1664, Code.CALL_M1616, Code.CALL_M1632})
# Intel's reading of a 66h prefix on a near branch (ignored); AMD would take a 16-bit offset.
_OPTIONS = DecoderOptions.NONE
_LEAVING: frozenset[Flow] = frozenset({"ret", "indirect_jump", "system"})
_PADDING = frozenset({Mnemonic.NOP, Mnemonic.INT3})
_MNEMONICS = {value: name.lower() for name, value in vars(Mnemonic).items() if isinstance(value, int)}


class DecodeError(ProbekitError):
    """Bytes are no instruction."""

    def __init__(self, message: str, *, addr: int, raw: bytes) -> None:
        super().__init__(message)
        self.addr = addr
        """Their address."""
        self.raw = raw[:16]
        """The bytes, at most 16."""


@dataclass(frozen=True, slots=True)
class Insn:
    """One decoded instruction."""

    addr: int
    """Its address."""
    raw: bytes
    """Its bytes."""
    flow: Flow
    """Where control can go after it."""
    mnemonic: str
    """The name of its operation in lower case, such as ``mov``."""
    target: int | None = None
    """The address that a direct branch or call leads to, else None."""
    rip_target: int | None = None
    """The address that a RIP-relative operand names, else None."""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.raw)

    @property
    def end(self) -> int:
        """The address of the following instruction."""
        return self.addr + len(self.raw)

    @property
    def is_nop5(self) -> bool:
        """Whether it is the 5-byte nop that the kernel's ftrace pads functions with."""
        return self.raw == NOP5

    @property
    def is_endbr(self) -> bool:
        """Whether it is ``endbr64``, a valid target of indirect branches."""
        return self.raw == ENDBR64


class FlowExit(NamedTuple):
    """An instruction that moves control out of the scanned code.

    It is a tuple and not a dataclass because one kernel has 60,000 of them.
    """

    flow: Flow
    """Where control can go after it."""
    addr: int
    """Its address."""
    size: int
    """Bytes."""
    target: int
    """The address that a direct branch leads to, else 0."""


class FlowScan(NamedTuple):
    """The result of :func:`scan_flow`."""

    exits: list[FlowExit]
    """Returns, jumps to outside and indirect jumps, in address order."""
    inner_targets: list[int]
    """Targets of direct branches that stay inside the code."""
    strays: list[int]
    """Addresses of an int3 that ordinary code runs into, and of undefined bytes.

    They are another debugger's breakpoint, or data; what follows may be decoded out of step.
    """
    last: Flow
    """The flow of the last instruction that is not padding."""
    end: int
    """The address after that instruction."""


def mnemonic_name(insn: Instruction) -> str:
    """Return iced's name of an instruction's operation in lower case: ``mov``, ``cmove``."""
    return _MNEMONICS[insn.mnemonic]


def _flow_of(insn: Instruction) -> Flow:
    code = insn.code
    if code == Code.INVALID:
        return "undefined"
    flow = _FLOWS[insn.flow_control]
    if flow == "ret":
        return "ret" if code in _PLAIN_RET else "system"
    if flow in ("call", "indirect_call"):
        return flow if code in _NEAR_CALL else "system"
    if code in _FAR_JUMP:
        return "system"
    return flow


def _facts(insn: Instruction, raw: bytes) -> Insn:
    flow = _flow_of(insn)
    direct = flow in ("jump", "cond", "call")
    return Insn(
        addr=insn.ip,
        raw=raw,
        flow=flow,
        mnemonic=mnemonic_name(insn),
        target=insn.near_branch_target if direct else None,
        rip_target=insn.ip_rel_memory_address if insn.is_ip_rel_memory_operand else None,
    )


def decode_one(code: bytes, addr: int) -> Insn:
    """Decode the instruction at the start of ``code``. Raises :class:`DecodeError` when it is none or cut short."""
    insn = Decoder(64, code[:15], _OPTIONS, ip=addr).decode()
    if insn.code == Code.INVALID:
        raise DecodeError(f"no instruction at {addr:#x}: {code[:15].hex(' ')}", addr=addr, raw=code)
    return _facts(insn, bytes(code[: insn.len]))


def decode_run(code: bytes, addr: int) -> Iterator[Insn]:
    """Yield every instruction of ``code``. Raises :class:`DecodeError` at bytes that are none, or are cut short."""
    for insn in Decoder(64, code, _OPTIONS, ip=addr):
        offset = insn.ip - addr
        if insn.code == Code.INVALID:
            raise DecodeError(f"no instruction at {insn.ip:#x}", addr=insn.ip, raw=code[offset:])
        yield _facts(insn, bytes(code[offset : offset + insn.len]))


def instruction_starts(code: bytes, addr: int) -> list[int]:
    """Return the address of every instruction of a function, up to bytes that are none; without padding and int3."""
    starts: list[int] = []
    for insn in Decoder(64, code[: scan_flow(code, addr).end - addr], _OPTIONS, ip=addr):
        if insn.code == Code.INVALID:
            break
        if insn.code != Code.INT3:
            starts.append(insn.ip)
    return starts


def scan_flow(code: bytes, addr: int) -> FlowScan:
    """Walk ``code`` once and keep what moves control. ``addr``: its address."""
    body = code.rstrip(b"\xcc")
    scan = _scan(body, addr)
    if scan.strays and len(body) < len(code):
        # The last instruction may end in a byte cc that was taken for int3 padding: decode with it.
        return _scan(code, addr)
    return scan


_BRANCH: dict[int, Flow] = {int(FlowControl.CONDITIONAL_BRANCH): "cond", int(FlowControl.UNCONDITIONAL_BRANCH): "jump"}
_CALL = int(FlowControl.CALL)
_INT = int(FlowControl.INTERRUPT)
# After these an int3 is padding, or the compiler's barrier against straight-line speculation, and no breakpoint. A
# call is one of them: the last instruction may be a call of a function that never returns.
_ENDS = frozenset(
    int(flow)
    for flow in (
        FlowControl.UNCONDITIONAL_BRANCH,
        FlowControl.INDIRECT_BRANCH,
        FlowControl.RETURN,
        FlowControl.INTERRUPT,
        FlowControl.EXCEPTION,
        FlowControl.CALL,
        FlowControl.INDIRECT_CALL,
    )
)


def _scan(code: bytes, addr: int) -> FlowScan:
    # The hot loop: local names, integer compares, nothing built for ordinary instructions.
    exits: list[FlowExit] = []
    inner_targets: list[int] = []
    strays: list[int] = []
    end = addr + len(code)
    flow = 0
    mover: Instruction | None = None  # the last instruction that is not plain
    branch, call, interrupt, ends = _BRANCH, _CALL, _INT, _ENDS
    for insn in Decoder(64, code, _OPTIONS, ip=addr):
        before = flow
        flow = insn.flow_control
        if not flow:
            continue
        if flow in branch:
            target = insn.near_branch_target
            if addr < target < end:
                inner_targets.append(target)
            else:
                exits.append(FlowExit(branch[flow], insn.ip, insn.len, target))
        elif flow == interrupt:
            if before not in ends:
                strays.append(insn.ip)
            continue
        elif flow != call:
            kind = _flow_of(insn)
            if kind in _LEAVING:
                exits.append(FlowExit(kind, insn.ip, insn.len, 0))
            elif kind == "undefined":
                strays.append(insn.ip)
        mover = insn
    last, stop = _last_flow(code, addr, mover)
    return FlowScan(exits, inner_targets, strays, last, stop)


def _last_flow(code: bytes, addr: int, mover: Instruction | None) -> tuple[Flow, int]:
    # What follows the last moving instruction is padding (nops, int3) or code that runs off the end.
    start = mover.next_ip if mover is not None else addr
    last: Flow = _flow_of(mover) if mover is not None else "next"
    stop = start
    for insn in Decoder(64, code[start - addr :], _OPTIONS, ip=start):
        if insn.mnemonic not in _PADDING:
            last, stop = "next", insn.next_ip
    return last, stop
