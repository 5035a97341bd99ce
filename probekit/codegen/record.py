"""The code that frames a record: its room in the ring, its header, what is done as it is finished."""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.actions import Action, Commit, Discard, RecordPlan, Speculate
from probekit.buffers.layout import RECORD_HEADER
from probekit.codegen.emit_context import Here
from probekit.errors import InternalError

__all__ = ("speculative_actions",)


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
    if not isinstance(action, Commit | Discard | Speculate):
        raise InternalError("an action names no speculation")
    field = record.fields[action.field]
    if field.size not in (4, 8):
        raise InternalError("the number of a speculation has neither 4 nor 8 bytes")
    return RECORD_HEADER.size + field.offset, field.size == 4
