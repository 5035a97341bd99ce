"""Build detours: the jump at a site and the stub that it leads to.

Which kind a site has is found out in :mod:`probekit.patch.find_exits` (returns and tail jumps),
:func:`probekit.patch.sites.entry_site` and :mod:`probekit.patch.insn_sites`.

A *stub* is `prefix + body + suffix`. The body is what a probe does. Control
leaves it at its end only; it balances the stack and preserves every register.
The prefix and suffix make the whole behave as the site did::

    entry pad   nop5                 body; jmp site+5
    ret         ret                  body; ret                      (the original bytes)
    thunk       jmp thunk            body; jmp thunk
    tail        jmp f                body; jmp f
    cond tail   jcc f                jcc L; jmp site+6; L: body; jmp f
    indirect    jmp rax              body; jmp rax                  (relocated if RIP-relative)
    instruction mov rax, [rdi]       body; mov rax, [rdi]; nop; nop; jmp site+3

No code uses the flags after a function's entry, its return or a jump into another
function, so a body may change them there. The conditional form tests them before its
body. At an instruction they may be in use, and its body must preserve them.

The site itself becomes `jmp stub`, padded with nops, which no CPU executes. A
site without room for that becomes `int3`, and the trap handler goes to the same stub.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, assert_never

from probekit.errors import InternalError, ProbekitError
from probekit.isa.relocate import relocate, relocate_jump
from probekit.patch.edits import Edit
from probekit.patch.sites import EntrySite, ExitSite, InsnSite, Site, needs_trap

__all__ = ("RangeError", "StubShape", "compose_stub", "copied_slot", "site_edit", "stub_shape")

_JMP = struct.Struct("<Bi")  # e9 rel32        jmp rel32
_JCC_OVER_JMP = 5  # bytes that the inverted branch jumps over
_REACH = 1 << 31
_TWO_NOPS = b"\x90\x90"  # nop; nop
_INT3 = b"\xcc"  # int3
_GROWTH = 32  # bytes by which an instruction's copy, nops and jump back included, may be longer than it


class RangeError(ProbekitError):
    """A jump does not reach its target."""

    def __init__(self, message: str, *, addr: int, target: int) -> None:
        super().__init__(message, hint="the stub must lie within 2 GiB of the text that it serves")
        self.addr = addr
        """Address of the jump."""
        self.target = target
        """Where it should lead."""


class StubShape(NamedTuple):
    """The sizes of a stub's parts in bytes."""

    prefix_size: int
    """Before the body."""
    total_size: int
    """Prefix, body and suffix."""


def _jump(addr: int, target: int) -> bytes:
    # e9 rel32        jmp target
    distance = target - addr - 5
    if not -_REACH <= distance < _REACH:
        raise RangeError(f"a jump from {addr:#x} does not reach {target:#x}", addr=addr, target=target)
    return _JMP.pack(0xE9, distance)


def stub_shape(site: Site, body_size: int) -> StubShape:
    """Return how large the stub of ``site`` is with a body of ``body_size`` bytes.

    For an instruction site the total is an upper bound: the copy's size depends on where it lies.
    """
    prefix, suffix = _sizes_around_body(site)
    return StubShape(prefix, prefix + body_size + suffix)


def _sizes_around_body(site: Site) -> tuple[int, int]:
    """Return the bytes of the prefix and of the suffix."""
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


def compose_stub(site: Site, stub_addr: int, body: bytes) -> bytes:
    """Return the stub of ``site`` for ``stub_addr``: prefix, ``body``, suffix.

    Raises :class:`RangeError` when a jump does not reach, and :class:`probekit.isa.relocate.RelocateError` when the
    instruction cannot be moved there.
    """
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
    """Return the site's instructions for ``addr``, two nops, and a jump back unless control never gets there."""
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
    """Return the edit that leads ``site`` to its stub. Raises :class:`RangeError`."""
    if needs_trap(site):
        # cc ...         int3; the rest of the instruction stays, and is verified with it
        return Edit(site.addr, site.old, _INT3 + site.old[1:])
    # e9 rel32 90*      jmp stub; nop ...      (no CPU executes the nops)
    jump = _jump(site.addr, stub_addr)
    return Edit(site.addr, site.old, jump.ljust(len(site.old), b"\x90"))


def copied_slot(site: Site, slot_addr: int) -> bytes:
    """Return the site's own instruction for ``slot_addr``, with nops and a jump back after it.

    `instruction; nop; nop; jmp back`: a vCPU that is sent to the slot does what
    the site did, also when a single-step trap over the instruction gets lost.
    A return or an unconditional jump has no jump back after it.
    Raises the errors of :func:`compose_stub`.
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
