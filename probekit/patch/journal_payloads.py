"""Define what the small records of an undo journal say, and encode and decode their JSON.

Nothing here trusts a payload: a journal that was found in a guest's memory may be forged.
Every decoder checks that the payload has exactly its fields, each of its type and within
its bounds, and raises :class:`~probekit.patch.journal_records.RecordError` otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn, TypeVar, assert_never

from probekit.guest.calls import (
    GENERAL_REGISTERS,
    LIST_ENTRY_KINDS,
    MEMORY_KINDS,
    AddListEntry,
    Allocate,
    CallPurpose,
    Free,
    GetModule,
    GuestCall,
    OtherCall,
    PutModule,
    RemoveListEntry,
)
from probekit.guest.linux import Allocation
from probekit.patch.journal_records import RecordError
from probekit.records import record

__all__ = (
    "BPF_KSYM",
    "DIE_NOTIFIER",
    "MODULE",
    "TIMER",
    "TRACEPOINT",
    "CallResult",
    "Facts",
    "JournalHeader",
    "Registration",
    "decode_allocation",
    "decode_batch",
    "decode_call",
    "decode_call_done",
    "decode_call_result",
    "decode_facts",
    "decode_freed",
    "decode_header",
    "decode_note",
    "decode_purpose",
    "decode_registrations",
    "decode_table",
    "decode_table_wiped",
    "encode_allocation",
    "encode_batch",
    "encode_call",
    "encode_call_done",
    "encode_call_result",
    "encode_facts",
    "encode_freed",
    "encode_header",
    "encode_note",
    "encode_registrations",
    "encode_table",
    "encode_table_wiped",
)

Facts = dict[str, object]
"""The JSON object of a small record."""

TIMER = "timer"
TRACEPOINT = "tracepoint"
MODULE = "module"
DIE_NOTIFIER = "die_notifier"
BPF_KSYM = "bpf_ksym"
"""Kinds of :class:`Registration`."""

_REGISTRATION_WORDS: Mapping[str, int] = {TIMER: 2, TRACEPOINT: 3, MODULE: 1, DIE_NOTIFIER: 1, BPF_KSYM: 1}
_HEADER_FIELDS = ("target", "host_pid", "host_start", "build_id", "base", "cookie")
_TOKEN_SIZE = 8
_MAX_WORDS = 8  # of a kind that this version does not know
_MAX_TEXT = 1 << 16
_MAX_VCPU = 1 << 16
_MAX_SIZE = 1 << 40  # bytes of one allocation
_U64 = 1 << 64
_KERNEL = 1 << 63  # where kernel addresses begin


@record
class JournalHeader:
    """Says which guest, which kernel and which host process a journal is of."""

    target: str
    """The target's key, by which a recovery finds the journals of a guest.

    A running process writes what :func:`probekit.session.identity.target_key` gives. Any text is accepted when read.
    """
    host_pid: int
    """Process ID of the host process that wrote the journal."""
    host_start: float
    """When that process started, in seconds since 1970. It tells the process from a later one with the same ID."""
    build_id: bytes
    """Build ID of the guest kernel; may be empty."""
    base: int
    """Address of the guest kernel's ``_text``."""
    cookie: bytes
    """Bytes that differ after a reboot of the guest (:func:`probekit.session.identity.boot_cookie`)."""
    token: bytes = b""
    """8 random bytes that no other journal has: the stamp of its guest memory (:mod:`probekit.guest.linux`).

    Empty in journals of earlier versions, whose memory has no stamp.
    """


@record
class Registration:
    """Something of ours that a guest call registered with the kernel, and that another call takes back."""

    kind: str
    """What was registered, such as :data:`TIMER`. Another version of probekit may know more kinds."""
    words: tuple[int, ...]
    """What the calls need.

    - :data:`TIMER`: addresses of the watchdog's memory and function
    - :data:`TRACEPOINT`: addresses of the ``struct tracepoint`` and our function, and the function's data
    - :data:`MODULE`: address of the ``struct module`` that we hold a reference to
    - :data:`DIE_NOTIFIER`, :data:`BPF_KSYM`: address of our structure
    """


class CallResult(NamedTuple):
    """What a guest call returned."""

    rsp: int
    """The call's ``rsp`` (:class:`probekit.guest.calls.GuestCall`), which tells it from other calls."""
    value: int
    """The value of RAX, unsigned."""


_T = TypeVar("_T")


def encode_facts(facts: Facts) -> bytes:
    """Return the payload of a small record: one JSON object. Bytes must be given as hex."""
    return json.dumps(facts, separators=(",", ":"), allow_nan=False).encode()


def decode_facts(payload: bytes, *names: str, optional: Sequence[str] = ()) -> Facts:
    """Return the JSON object of a small record.

    Raises :class:`RecordError` unless its fields are exactly ``names``, and some of ``optional``.
    """
    try:
        facts = json.loads(payload, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RecordError("a record is no JSON") from error
    if not isinstance(facts, dict):
        raise RecordError("a record is no object")
    if facts.keys() - set(optional) != set(names):
        raise RecordError(f"a record has the fields {sorted(facts)}, not {sorted(names)}")
    return facts


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of a journal")


def _number(value: object, what: str, *, low: int = 0, limit: int = _U64) -> int:
    """Check that ``value`` is an integer with ``low <= value < limit``. (A bool is an int to Python, but not here.)"""
    if type(value) is not int or not low <= value < limit:
        raise RecordError(f"a record's {what} is out of range")
    return value


def _address(value: object, what: str) -> int:
    return _number(value, what, low=_KERNEL)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise RecordError(f"a record's {what} is no text")
    return value


def _hex(value: object, what: str) -> bytes:
    try:
        return bytes.fromhex(_text(value, what))
    except ValueError as error:
        raise RecordError(f"a record's {what} is not hex") from error


def _one_of(value: object, known: Mapping[str, _T], what: str) -> _T:
    name = _text(value, what)
    if name not in known:
        raise RecordError(f"{name!r} is no {what} that this version knows")
    return known[name]


def encode_header(header: JournalHeader) -> bytes:
    """Return the payload of a header."""
    facts: Facts = {
        "target": header.target,
        "host_pid": header.host_pid,
        "host_start": float(header.host_start),
        "build_id": header.build_id.hex(),
        "base": header.base,
        "cookie": header.cookie.hex(),
    }
    return encode_facts(facts | {"token": header.token.hex()} if header.token else facts)


def decode_header(payload: bytes) -> JournalHeader:
    """Read what :func:`encode_header` wrote."""
    facts = decode_facts(payload, *_HEADER_FIELDS, optional=("token",))
    start = facts["host_start"]
    if isinstance(start, bool) or not isinstance(start, int | float) or not math.isfinite(start):
        raise RecordError("a record's 'host_start' is no time")
    return JournalHeader(
        target=_text(facts["target"], "'target'"),
        host_pid=_number(facts["host_pid"], "'host_pid'", limit=1 << 32),
        host_start=float(start),
        build_id=_hex(facts["build_id"], "'build_id'"),
        base=_number(facts["base"], "'base'"),
        cookie=_hex(facts["cookie"], "'cookie'"),
        token=_token(facts["token"]) if "token" in facts else b"",
    )


def _token(value: object) -> bytes:
    token = _hex(value, "'token'")
    if len(token) != _TOKEN_SIZE:
        raise RecordError("a record's 'token' has not 8 bytes")
    return token


def encode_batch(batch: int) -> bytes:
    """Return the payload that says that a batch of edits, counted from 0, is undone."""
    return encode_facts({"batch": batch})


def decode_batch(payload: bytes) -> int:
    """Read what :func:`encode_batch` wrote."""
    return _number(decode_facts(payload, "batch")["batch"], "'batch'")


def encode_allocation(memory: Allocation) -> bytes:
    """Return the payload that says that guest memory is ours."""
    return encode_facts({"kind": memory.kind, "addr": memory.addr, "size": memory.size})


def decode_allocation(payload: bytes) -> Allocation:
    """Read what :func:`encode_allocation` wrote. Kinds other than ``percpu`` have kernel addresses."""
    facts = decode_facts(payload, "kind", "addr", "size")
    kind = _one_of(facts["kind"], MEMORY_KINDS, "kind of memory")
    addr = _number(facts["addr"], "'addr'", low=1) if kind == "percpu" else _address(facts["addr"], "'addr'")
    return Allocation(kind, addr, _number(facts["size"], "'size'", low=1, limit=_MAX_SIZE))


def encode_freed(addr: int) -> bytes:
    """Return the payload that says that the allocation at ``addr`` is freed."""
    return encode_facts({"addr": addr})


def decode_freed(payload: bytes) -> int:
    """Read what :func:`encode_freed` wrote."""
    return _number(decode_facts(payload, "addr")["addr"], "'addr'")


def encode_registrations(items: Sequence[Registration]) -> bytes:
    """Return the payload of registrations that are about to be made, or were taken back."""
    return encode_facts({"items": [[item.kind, *item.words] for item in items]})


def decode_registrations(payload: bytes) -> list[Registration]:
    """Read what :func:`encode_registrations` wrote. A known kind has as many words as that kind has."""
    items = decode_facts(payload, "items")["items"]
    if not isinstance(items, list):
        raise RecordError("registrations are no list")
    return [_registration(item) for item in items]


def _registration(item: object) -> Registration:
    match item:
        case [str(kind), *words] if len(words) <= _MAX_WORDS:
            expected = _REGISTRATION_WORDS.get(kind, len(words))
            if len(words) != expected:
                raise RecordError(f"a registration of a {kind} has {len(words)} words, not {expected}")
            return Registration(kind, tuple(_number(word, "registration") for word in words))
        case _:
            raise RecordError("a registration is no name and numbers")


def encode_call(call: GuestCall) -> bytes:
    """Return the payload of a guest call that is about to be made."""
    return encode_facts(
        {
            "vcpu": call.vcpu,
            "regs": dict(call.regs),
            "return_addr": call.return_addr,
            "rsp": call.rsp,
            "purpose": _encode_purpose(call.purpose),
        }
    )


def decode_call(payload: bytes) -> GuestCall:
    """Read what :func:`encode_call` wrote."""
    facts = decode_facts(payload, "vcpu", "regs", "return_addr", "rsp", "purpose")
    regs = facts["regs"]
    if not isinstance(regs, dict) or regs.keys() != set(GENERAL_REGISTERS):
        raise RecordError("a call has not the registers of a task")
    return GuestCall(
        vcpu=_number(facts["vcpu"], "'vcpu'", limit=_MAX_VCPU),
        regs={name: _number(regs[name], f"register {name}") for name in GENERAL_REGISTERS},
        return_addr=_address(facts["return_addr"], "'return_addr'"),
        rsp=_address(facts["rsp"], "'rsp'"),
        purpose=decode_purpose(facts["purpose"]),
    )


def _encode_purpose(purpose: CallPurpose) -> list[str | int]:
    match purpose:
        case Allocate(kind, size):
            return ["allocate", kind, size]
        case Free(addr):
            return ["free", addr]
        case GetModule(module):
            return ["hold", module]
        case PutModule(module):
            return ["release", module]
        case AddListEntry(kind, addr):
            return ["hook", kind, addr]
        case RemoveListEntry(kind, addr):
            return ["unhook", kind, addr]
        case OtherCall():
            return ["other"]
        case _:
            assert_never(purpose)


def _memory_kind_and_size(kind: object, size: object) -> Allocate:
    return Allocate(_one_of(kind, MEMORY_KINDS, "kind of memory"), _number(size, "size", low=1, limit=_MAX_SIZE))


_PURPOSES: Mapping[str, tuple[int, Callable[..., CallPurpose]]] = {
    "allocate": (2, _memory_kind_and_size),
    "free": (1, lambda addr: Free(_number(addr, "address", low=1))),
    "hold": (1, lambda module: GetModule(_address(module, "module"))),
    "release": (1, lambda module: PutModule(_address(module, "module"))),
    "hook": (
        2,
        lambda kind, addr: AddListEntry(_one_of(kind, LIST_ENTRY_KINDS, "kind of hook"), _address(addr, "hook")),
    ),
    "unhook": (
        2,
        lambda kind, addr: RemoveListEntry(_one_of(kind, LIST_ENTRY_KINDS, "kind of hook"), _address(addr, "hook")),
    ),
    "other": (0, OtherCall),
}
"""By a purpose's name in a journal: how many operands it has, and how it is made of them.

The names never change, because journals of earlier versions have them.
"""


def decode_purpose(words: object) -> CallPurpose:
    """Read the purpose of a call: a list of its name and operands."""
    match words:
        case [str(name), *operands]:
            count, make = _one_of(name, _PURPOSES, "purpose of a call")
            if len(operands) != count:
                raise RecordError(f"the purpose {name!r} has {len(operands)} operands, not {count}")
            return make(*operands)
        case _:
            raise RecordError("a call's purpose is no name and operands")


def encode_call_result(result: CallResult) -> bytes:
    """Return the payload that says what a call returned."""
    return encode_facts({"rsp": result.rsp, "value": result.value})


def decode_call_result(payload: bytes) -> CallResult:
    """Read what :func:`encode_call_result` wrote."""
    facts = decode_facts(payload, "rsp", "value")
    return CallResult(_address(facts["rsp"], "'rsp'"), _number(facts["value"], "'value'"))


def encode_call_done(rsp: int) -> bytes:
    """Return the payload that says that the task of the call with this ``rsp`` is given back."""
    return encode_facts({"rsp": rsp})


def decode_call_done(payload: bytes) -> int:
    """Read what :func:`encode_call_done` wrote."""
    return _address(decode_facts(payload, "rsp")["rsp"], "'rsp'")


def encode_table(addr: int) -> bytes:
    """Return the payload that says that the recovery table's header stands at ``addr``."""
    return encode_facts({"addr": addr})


def decode_table(payload: bytes) -> int:
    """Read what :func:`encode_table` wrote."""
    return _address(decode_facts(payload, "addr")["addr"], "'addr'")


def encode_table_wiped() -> bytes:
    """Return the payload that says that the recovery table's header is about to be wiped."""
    return encode_facts({})


def decode_table_wiped(payload: bytes) -> None:
    """Check what :func:`encode_table_wiped` wrote."""
    decode_facts(payload)


def encode_note(text: str) -> bytes:
    """Return the payload of a note, which is for people only."""
    return encode_facts({"text": text[:_MAX_TEXT]})


def decode_note(payload: bytes) -> str:
    """Read what :func:`encode_note` wrote."""
    return _text(decode_facts(payload, "text")["text"], "'text'")
