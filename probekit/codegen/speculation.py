"""Speculations as assembly. What is speculated goes through the ring like any record; the host keeps it apart.

The guest knows of each speculation only whether it is free, active, or ended but not yet seen to by the host: a word
each in the data memory, changed by compare-and-exchange.
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.actions import Action, Commit, Discard, RecordPlan, Speculate
from probekit.buffers.layout import RECORD_HEADER, HeaderWord
from probekit.buffers.variables import SPECULATION_ACTIVE, SPECULATION_ENDED
from probekit.codegen.context import Context
from probekit.codegen.here import Here
from probekit.codegen.routines import At, Routine
from probekit.codegen.runtime import header

__all__ = ("SPECULATION", "speculative_actions")


def _words(context: Context) -> tuple[int, int]:
    """Address of the first word, and how many there are."""
    place = context.storage.speculations
    assert place is not None
    return context.activity + place.offset, place.size // 8


def _acquire(context: Context, _at: At) -> str:
    """-> rax: the number of a speculation that was free, or 0 (which is counted). r10d: one is being seen to."""
    first, count = _words(context)
    return f"""
        mov r9, {first:#x}
        xor edx, edx
        xor r10d, r10d
        mov r8d, {SPECULATION_ACTIVE}
    next:
        mov rax, qword ptr [r9 + rdx*8]
        test rax, rax
        jnz taken
        lock cmpxchg qword ptr [r9 + rdx*8], r8
        jnz taken
        lea eax, [rdx + 1]
        ret
    taken:
        cmp rax, {SPECULATION_ENDED}
        jne active
        mov r10d, 1
    active:
        inc edx
        cmp edx, {count:#x}
        jb next
        xor eax, eax
        test r10d, r10d
        jnz busy
        inc {header(HeaderWord.SPEC_UNAVAILABLE)}
        ret
    busy:
        inc {header(HeaderWord.SPEC_BUSY)}
        ret
    """


def _end(context: Context, _at: At) -> str:
    """rax: a number -> 0 in eax unless that speculation was active and is ended now."""
    first, count = _words(context)
    return f"""
        dec rax
        cmp rax, {count:#x}
        jae never
        mov rdx, {first:#x}
        lea rdx, [rdx + rax*8]
        mov eax, {SPECULATION_ACTIVE}
        mov ecx, {SPECULATION_ENDED}
        lock cmpxchg qword ptr [rdx], rcx
        jnz never
        mov eax, 1
        ret
    never:
        xor eax, eax
        ret
    """


def _active(context: Context, _at: At) -> str:
    """rax: a number -> zero flag when that speculation is active."""
    first, count = _words(context)
    return f"""
        dec rax
        cmp rax, {count:#x}
        jae never
        mov rdx, {first:#x}
        cmp qword ptr [rdx + rax*8], {SPECULATION_ACTIVE}
        ret
    never:
        test rsp, rsp
        ret
    """


SPECULATION: dict[str, Routine] = {
    "speculation": _acquire,
    "speculation_active": _active,
    "speculation_end": _end,
}


def speculative_actions(record: RecordPlan, at: str, here: Here, lost: str) -> Iterator[str]:
    """What happens as the record is finished. ``at``: the operand that holds its address; ``lost``: where a record
    goes that nobody will ever see. A commit or discard that does nothing has its number made 0 for the host."""
    for action in record.actions:
        if not isinstance(action, Commit | Discard | Speculate):
            continue
        place, narrow = _field(record, action)
        number = f"{'dword' if narrow else 'qword'} ptr [rdi + {place:#x}]"
        yield f"mov rdi, {at}"
        yield f"{'movsxd' if narrow else 'mov'} rax, {number}"
        if isinstance(action, Speculate):
            yield here.call("speculation_active")
            yield f"jne {lost}"
        else:
            label = here.unique()
            yield here.call("speculation_end")
            yield "test eax, eax"
            yield f"jnz {label}"
            yield f"mov rdi, {at}"
            yield f"mov {number}, 0"
            yield f"{label}:"


def _field(record: RecordPlan, action: Action) -> tuple[int, bool]:
    """Offset in the record of the number that an action names, and whether it has 4 bytes, not 8."""
    assert isinstance(action, Commit | Discard | Speculate)
    field = record.fields[action.field]
    assert field.size in (4, 8)
    return RECORD_HEADER.size + field.offset, field.size == 4
