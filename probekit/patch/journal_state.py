"""What a journal says: its data, and the replay of its records, read without trusting them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from probekit.errors import InternalError, JournalError
from probekit.patch.edits import Edit
from probekit.patch.journal_records import (
    Facts,
    Kind,
    Record,
    RecordError,
    decode_edits,
    decode_facts,
    first_record,
    read_records,
)
from probekit.records import record

__all__ = (
    "Allocation",
    "Call",
    "JournalHeader",
    "JournalState",
    "Registration",
    "load",
    "load_header",
    "parse",
)

_MAX_FILE = 1 << 30
_HEADER_LIMIT = 1 << 16


@record
class JournalHeader:
    """Which guest, which kernel, which host process.

    ``target``: as the user gave it. ``build_id``, ``base``: of the guest kernel.
    ``cookie``: bytes that differ after a guest reboot. ``host_start``: the host
    process's start in seconds, so that a reused pid is not taken for it.
    """

    target: str
    host_pid: int
    host_start: float
    build_id: bytes
    base: int
    cookie: bytes


@record
class Allocation:
    """Guest memory that is ours. ``kind``: how it is freed; ``detail``: what that needs to know."""

    kind: str
    addr: int
    size: int
    detail: Mapping[str, int | str]


@record
class Call:
    """A vCPU borrowed for a guest call, and everything needed to put it back.

    ``raw``: the stub's whole register packet; ``regs``: the named ones.
    ``return_addr``: where the call comes back to, recognised by ``rsp``.
    """

    vcpu: int
    raw: bytes
    regs: Mapping[str, int]
    return_addr: int
    rsp: int


@record
class Registration:
    """Something of ours that the guest kernel was told of, by a call; another call takes it back.

    ``kind``: which calls those are; ``words``: what they are told.
    """

    kind: str
    words: tuple[int, ...]


@record
class JournalState:
    """What a journal says is in the guest. ``batches``: edits not reverted, oldest first; undo them newest first.

    ``registrations``: about to be made, or made, and not taken back, oldest first.
    ``allocations``: not freed. ``call``: begun and not done, or None.
    ``notes``: phases passed, in order. ``torn``: the last record was incomplete and is ignored.
    """

    path: Path
    header: JournalHeader
    batches: tuple[tuple[Edit, ...], ...]
    allocations: tuple[Allocation, ...]
    call: Call | None
    notes: tuple[str, ...]
    torn: bool
    registrations: tuple[Registration, ...] = ()


def load_header(path: Path) -> JournalHeader:
    """Only whose journal it is. Raises :class:`JournalError` as :func:`load` does."""
    try:
        with path.open("rb") as stream:
            kind, payload = first_record(stream.read(_HEADER_LIMIT))
        if kind != Kind.HEADER:
            raise RecordError("it has no header")
        return _header(payload)
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    except RecordError as error:
        raise JournalError(
            f"{path} is no journal that can be trusted: {error}",
            path=str(path),
            hint="move the file away, then `probekit recover` finds what it spoke of in the guest itself",
        ) from error


def load(path: Path) -> JournalState:
    """Read a journal that another process left. :class:`JournalError` for anything that is not one, or is damaged."""
    try:
        if path.stat().st_size > _MAX_FILE:
            raise JournalError(f"{path} is too large to be a journal", path=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    return parse(data, path)


def parse(data: bytes, path: Path = Path()) -> JournalState:
    """What a journal's bytes say. ``path``: where they are from. Raises :class:`JournalError`."""
    try:
        records, torn = read_records(data)
        return _replay(path, records, torn)
    except RecordError as error:
        raise JournalError(f"{path} is no journal that can be trusted: {error}", path=str(path)) from error


def _replay(path: Path, records: list[Record], torn: bool) -> JournalState:
    if not records or records[0].kind != Kind.HEADER:
        raise RecordError("it has no header")
    header = _header(records[0].payload)
    batches: list[tuple[Edit, ...]] = []
    gone: set[int] = set()
    allocations: dict[int, Allocation] = {}
    call: Call | None = None
    notes: list[str] = []
    registrations: dict[Registration, None] = {}
    for kind, payload in records[1:]:
        match kind:
            case Kind.EDITS:
                batches.append(decode_edits(payload))
            case Kind.EDITS_REVERTED:
                gone.add(_number(decode_facts(payload, {"batch": int}), "batch"))
            case Kind.ALLOCATED:
                allocation = _allocation(payload)
                allocations[allocation.addr] = allocation
            case Kind.FREED:
                allocations.pop(_number(decode_facts(payload, {"addr": int}), "addr"), None)
            case Kind.CALL_STARTED:
                call = _call(payload)
            case Kind.CALL_DONE:
                call = None
            case Kind.REGISTERED:
                registrations.update(dict.fromkeys(_registrations(payload)))
            case Kind.UNREGISTERED:
                for item in _registrations(payload):
                    registrations.pop(item, None)
            case Kind.NOTE:
                notes.append(str(decode_facts(payload, {"text": str})["text"]))
            case _:
                raise RecordError(f"a record of unknown kind {kind}")
    standing = tuple(batch for number, batch in enumerate(batches) if number not in gone)
    memory = tuple(allocations.values())
    return JournalState(path, header, standing, memory, call, tuple(notes), torn, tuple(registrations))


def _number(facts: Facts, key: str) -> int:
    value = facts[key]
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise RecordError(f"a record's {key!r} is out of range")
    return value


def _hex(facts: Facts, key: str) -> bytes:
    try:
        return bytes.fromhex(str(facts[key]))
    except ValueError as error:
        raise RecordError(f"a record's {key!r} is not hex") from error


def _header(payload: bytes) -> JournalHeader:
    shape: dict[str, type | tuple[type, ...]] = {
        "target": str, "host_pid": int, "host_start": (int, float), "build_id": str, "base": int, "cookie": str,
    }  # fmt: skip
    facts = decode_facts(payload, shape)
    start = facts["host_start"]
    if not isinstance(start, int | float):
        raise InternalError("a decoded record has a start time of another type")
    return JournalHeader(
        target=str(facts["target"]),
        host_pid=_number(facts, "host_pid"),
        host_start=float(start),
        build_id=_hex(facts, "build_id"),
        base=_number(facts, "base"),
        cookie=_hex(facts, "cookie"),
    )


def _allocation(payload: bytes) -> Allocation:
    facts = decode_facts(payload, {"kind": str, "addr": int, "size": int, "detail": dict})
    detail = facts["detail"]
    if not isinstance(detail, dict):
        raise InternalError("a decoded record has details of another type")
    if not all(isinstance(value, int | str) for value in detail.values()):
        raise RecordError("an allocation's detail is neither number nor text")
    return Allocation(str(facts["kind"]), _number(facts, "addr"), _number(facts, "size"), detail)


def _registrations(payload: bytes) -> list[Registration]:
    items = decode_facts(payload, {"items": list})["items"]
    if not isinstance(items, list):
        raise InternalError("a decoded record has registrations of another type")
    found: list[Registration] = []
    for item in items:
        match item:
            case [str(kind), *words] if all(type(word) is int and 0 <= word < 1 << 64 for word in words):
                found.append(Registration(kind, tuple(words)))
            case _:
                raise RecordError("a registration is no name and numbers")
    return found


def _call(payload: bytes) -> Call:
    facts = decode_facts(payload, {"vcpu": int, "raw": str, "regs": dict, "return_addr": int, "rsp": int})
    regs = facts["regs"]
    if not isinstance(regs, dict):
        raise InternalError("a decoded record has registers of another type")
    if not all(isinstance(value, int) for value in regs.values()):
        raise RecordError("a call's register is no number")
    return Call(
        vcpu=_number(facts, "vcpu"),
        raw=_hex(facts, "raw"),
        regs=regs,
        return_addr=_number(facts, "return_addr"),
        rsp=_number(facts, "rsp"),
    )
