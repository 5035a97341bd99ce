"""Write what a journal says in format 1, as the release of that format did: calls and the table are notes there."""

from __future__ import annotations

import json

from probekit.patch.journal_payloads import decode_allocation, decode_call, decode_call_result
from probekit.patch.journal_records import MAGIC_V1, Kind, Record, encode_record
from probekit.patch.journal_state import JournalState

__all__ = ("in_format_1",)


def in_format_1(state: JournalState) -> bytes:
    """The bytes of a file of format 1."""
    return MAGIC_V1 + b"".join(encode_record(kind, text) for item in state.records for kind, text in _old(item))


def _old(item: Record) -> list[tuple[Kind, bytes]]:
    match item.kind:
        case Kind.CALL_STARTED:
            call = decode_call(item.payload)
            name, *operands = json.loads(item.payload)["purpose"]
            hexed = [f"{word:#x}" if isinstance(word, int) and name != "allocate" else str(word) for word in operands]
            purpose = "" if name == "other" else " ".join([name, *hexed])
            facts: dict[str, object] = {"vcpu": call.vcpu, "raw": "", "regs": dict(call.regs)}
            facts |= {"return_addr": call.return_addr, "rsp": call.rsp}
            return [_note(f"call: {purpose}"), (Kind.CALL_STARTED_V1, _json(facts))]
        case Kind.CALL_RETURNED:
            return [_note(f"returned: {decode_call_result(item.payload).value:#x}")]
        case Kind.CALL_DONE:
            return [(Kind.CALL_DONE, b"{}")]
        case Kind.ALLOCATED:
            memory = decode_allocation(item.payload)
            facts = {"kind": memory.kind, "addr": memory.addr, "size": memory.size, "detail": {}}
            return [(Kind.ALLOCATED, _json(facts))]
        case Kind.TABLE_WRITTEN:
            return [_note("the recovery table is in the guest")]
        case Kind.TABLE_WIPED:
            return [_note("the recovery table is wiped")]
        case _:
            return [(Kind(item.kind), item.payload)]


def _note(text: str) -> tuple[Kind, bytes]:
    return Kind.NOTE, _json({"text": text})


def _json(facts: dict[str, object]) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode()
