"""Detours: the jump at a site and the stub it leads to.

A *stub* is `prefix + body + suffix`. The body is whatever a probe does; it
must end at its own end, balance the stack and keep every register that it
changes. The prefix and suffix make the whole behave as the site did::

    entry pad   nop5                 body; jmp site+5
    ret         ret                  body; ret                      (the original bytes)
    thunk       jmp thunk            body; jmp thunk
    tail        jmp f                body; jmp f
    cond tail   jcc f                jcc L; jmp site+6; L: body; jmp f
    indirect    jmp rax              body; jmp rax                  (relocated if RIP-relative)
    instruction mov rax, [rdi]       body; mov rax, [rdi]; nop; nop; jmp site+3

Flags are dead at every place where a body runs: at a function's entry, at its
return, and on the way into another function. The conditional form tests them
before its body. Only at an instruction they may be alive: its body must keep them.

The site itself becomes `jmp stub`, filled up with nops, which nothing reaches. A
site with no room for that becomes `int3`, and the trap leads to the same stub.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, assert_never

from probekit.errors import InternalError, ProbekitError
from probekit.isa.relocate import relocate, relocate_jump
from probekit.patch.edits import Edit
from probekit.patch.sites import EntrySite, ExitSite, InsnSite, Site, traps

__all__ = ("RangeError", "StubShape", "compose", "copied_slot", "site_edit", "stub_shape")

_JMP = struct.Struct("<Bi")  # e9 rel32        jmp rel32
_JCC_OVER_JMP = 5
_REACH = 1 << 31
_TWO_NOPS = b"\x90\x90"  # nop; nop
_INT3 = b"\xcc"  # int3
_GROWTH = 32  # what an instruction's copy may be longer than the instruction, nops and jump back included


class RangeError(ProbekitError):
    """A jump that does not reach. ``addr``: of the jump; ``target``: where it should go."""

    def __init__(self, message: str, *, addr: int, target: int) -> None:
        super().__init__(message, hint="the stub must lie within 2 GiB of the text that it serves")
        self.addr = addr
        self.target = target


class StubShape(NamedTuple):
    """Sizes in bytes: what stands before the body, after it, and all together."""

    prefix_size: int
    suffix_size: int
    total_size: int


def _jump(addr: int, target: int) -> bytes:
    # e9 rel32        jmp target
    distance = target - addr - 5
    if not -_REACH <= distance < _REACH:
        raise RangeError(f"a jump from {addr:#x} does not reach {target:#x}", addr=addr, target=target)
    return _JMP.pack(0xE9, distance)


def stub_shape(site: Site, body_size: int) -> StubShape:
    """How large the stub of ``site`` is around a body of ``body_size`` bytes; at an instruction an upper bound."""
    prefix, suffix = _around(site)
    return StubShape(prefix, suffix, prefix + body_size + suffix)


def _around(site: Site) -> tuple[int, int]:
    if isinstance(site, EntrySite):
        return 0, 5
    if isinstance(site, InsnSite):
        return 0, len(site.old) + _GROWTH
    match site.kind:
        case "ret":
            return 0, site.insn_size
        case "return_thunk" | "tail_jump":
            return 0, 5
        case "cond_tail_jump":
            return 2 + _JCC_OVER_JMP, 5
        case "indirect_tail_jump":
            return 0, site.insn_size
        case _:
            assert_never(site.kind)


def compose(site: Site, stub_addr: int, body: bytes) -> bytes:
    """The stub of ``site`` for ``stub_addr``: prefix, ``body``, suffix. :class:`RangeError` when it cannot reach."""
    if isinstance(site, EntrySite):
        # <body>; e9 rel32      jmp past the pad
        return body + _jump(stub_addr + len(body), site.addr + 5)
    if isinstance(site, InsnSite):
        return body + _copied_insns(site, stub_addr + len(body))
    match site.kind:
        case "ret":
            # <body>; c3 | c2 imm16      ret
            return body + site.old[: site.insn_size]
        case "return_thunk" | "tail_jump":
            # <body>; e9 rel32      jmp target
            return body + _jump(stub_addr + len(body), _target(site))
        case "cond_tail_jump":
            # 7x 05; e9 rel32; <body>; e9 rel32      jcc L; jmp fall-through; L: body; jmp target
            condition = site.old[0 if site.insn_size == 2 else site.insn_size - 5]
            short = bytes((0x70 | condition & 0x0F, _JCC_OVER_JMP))
            past = _jump(stub_addr + 2, site.addr + site.insn_size)
            return short + past + body + _jump(stub_addr + 7 + len(body), _target(site))
        case "indirect_tail_jump":
            # <body>; ff e0      jmp rax, or through memory
            return body + relocate_jump(site.old[: site.insn_size], site.addr, stub_addr + len(body))
        case _:
            assert_never(site.kind)


def _copied_insns(site: InsnSite, addr: int) -> bytes:
    """The instructions at ``addr``, nop, nop, and a jump back behind them where control gets there."""
    moved = relocate(site.old, site.addr, addr, jump_back=False)
    head = moved.code + _TWO_NOPS
    if len(head) + 5 > len(site.old) + _GROWTH:
        raise InternalError("a copied instruction is longer than its upper bound")
    return head + _jump(addr + len(head), site.addr + len(site.old)) if moved.falls_through else head


def _target(site: ExitSite) -> int:
    if site.target is None:
        raise ValueError(f"the {site.kind} at {site.addr:#x} has no target")
    return site.target


def site_edit(site: Site, stub_addr: int) -> Edit:
    """The edit that leads ``site`` to its stub."""
    if traps(site):
        # cc ...         int3; the rest of the instruction stays, and is verified with it
        return Edit(site.addr, site.old, _INT3 + site.old[1:])
    # e9 rel32 90*      jmp stub; nop ...      (nothing reaches the nops)
    jump = _jump(site.addr, stub_addr)
    return Edit(site.addr, site.old, jump.ljust(len(site.old), b"\x90"))


def copied_slot(site: Site, slot_addr: int) -> bytes:
    """The site's own instruction as it must stand at ``slot_addr``, with nops and a jump back behind it.

    `instruction; nop; nop; jmp back`: a vCPU that is sent to the slot does what
    the site did, also when a single-step trap over the instruction gets lost.
    An instruction that never goes on to the next one has no jump behind it.
    """
    if isinstance(site, EntrySite):
        # 0f 1f 44 00 00; 90 90; e9 rel32      nop5; nop; nop; jmp past the pad
        head = site.old + _TWO_NOPS
        return head + _jump(slot_addr + len(head), site.addr + 5)
    if isinstance(site, InsnSite):
        return _copied_insns(site, slot_addr)
    insn = site.old[: site.insn_size]
    match site.kind:
        case "ret":
            return insn + _TWO_NOPS
        case "return_thunk" | "tail_jump":
            return _jump(slot_addr, _target(site)) + _TWO_NOPS
        case "cond_tail_jump":
            # 0f 8x rel32; 90 90; e9 rel32      jcc target; nop; nop; jmp fall-through
            head = relocate_jump(insn, site.addr, slot_addr) + _TWO_NOPS
            return head + _jump(slot_addr + len(head), site.addr + site.insn_size)
        case "indirect_tail_jump":
            return relocate_jump(insn, site.addr, slot_addr) + _TWO_NOPS
        case _:
            assert_never(site.kind)
