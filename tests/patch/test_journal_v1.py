"""A journal of format 1, as the release of that format wrote it, is recovered as before.

tests/data/journal holds what its code wrote: one file for each purpose that a call had, and other states of it.
Each begins with the same things in the guest.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from probekit.errors import JournalError
from probekit.guest.calls import (
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
from probekit.patch.edits import Edit
from probekit.patch.journal import Journal
from probekit.patch.journal_payloads import JournalHeader, Registration, encode_facts, encode_header
from probekit.patch.journal_records import MAGIC, MAGIC_V1, Kind, encode_record
from probekit.patch.journal_state import Batch, JournalState, load, parse

STORED = Path(__file__).resolve().parent.parent / "data" / "journal"
HEADER = JournalHeader(
    "unix:/run/guest.sock", 4711, 1234.5, bytes.fromhex("01ab" * 10), 0xFFFFFFFF81000000, bytes(range(16))
)
SLOT = Allocation("percpu", 0x2F000, 8)
DATA = Allocation("data", 0xFFFFC90000010000, 0x4000)
CODE = Allocation("exec", 0xFFFFFFFFC0400000, 0x2000)
HELD = 0xFFFFFFFFC0300040
OTHER = HELD + 0x1000
DIE, KSYM = DATA.addr + 0x3000, DATA.addr + 0x3040
MEMORY = (SLOT, DATA, CODE)
REGISTERED = (
    Registration("timer", (DATA.addr + 0x100, CODE.addr + 0x40)),
    Registration("module", (HELD,)),
    Registration("bpf_ksym", (KSYM,)),
    Registration("die_notifier", (DIE,)),
    Registration("tracepoint", (0xFFFFFFFF82000000, CODE.addr + 0x80, 7)),
)
BATCH = Batch(0, (Edit(0xFFFFFFFF81000400, bytes.fromhex("0f1f440000"), bytes.fromhex("e911223344")),))
RSP = 0xFFFFC90000003E00


def _without(*kinds: str) -> tuple[Registration, ...]:
    return tuple(item for item in REGISTERED if item.kind not in kinds)


def _check(state: JournalState, memory: Sequence[Allocation], registrations: Sequence[Registration]) -> None:
    assert state.header == HEADER and not state.torn and state.notes == ()
    assert state.batches == (BATCH,)
    assert state.allocations == tuple(memory)
    assert state.registrations == tuple(registrations)


@pytest.mark.parametrize(
    ("name", "memory", "registrations"),
    [
        ("allocate_exec", (*MEMORY, Allocation("exec", 0xFFFFFFFFC0500000, 8192)), REGISTERED),
        ("allocate_data", (*MEMORY, Allocation("data", 0xFFFFC90000030000, 4096)), REGISTERED),
        ("allocate_percpu", (*MEMORY, Allocation("percpu", 0x2F100, 8)), REGISTERED),
        ("allocate_failed", MEMORY, REGISTERED),
        ("allocate_error", MEMORY, REGISTERED),
        ("free", (SLOT, DATA), REGISTERED),
        ("room", (SLOT, DATA), REGISTERED),
        ("hold", MEMORY, (*REGISTERED, Registration("module", (OTHER,)))),
        ("hold_refused", MEMORY, REGISTERED),
        ("release", MEMORY, _without("module")),
        ("hook", MEMORY, REGISTERED),
        ("unhook_die_notifier", MEMORY, _without("die_notifier")),
        ("unhook_bpf_ksym", MEMORY, _without("bpf_ksym")),
        ("other", MEMORY, REGISTERED),
    ],
)
def test_what_a_call_did_that_returned(
    name: str, memory: Sequence[Allocation], registrations: Sequence[Registration]
) -> None:
    state = load(STORED / f"{name}.journal")
    _check(state, memory, registrations)
    assert state.calls == () and state.table is None


@pytest.mark.parametrize(
    ("name", "purpose"),
    [
        ("allocate_begun", Allocate("data", 4096)),
        ("allocate_grace", Allocate("grace", 4096)),
        ("free_begun", Free(CODE.addr)),
        ("unhook_begun", RemoveListEntry("bpf_ksym", KSYM)),
    ],
)
def test_a_call_whose_task_was_not_given_back(name: str, purpose: CallPurpose) -> None:
    state = load(STORED / f"{name}.journal")
    (call,) = state.calls
    assert (call.vcpu, call.return_addr, call.rsp, call.purpose) == (1, 0xFFFFFFFF81000800, RSP, purpose)
    assert call.regs["rsp"] == 0xFFFFC90000003F00 and call.regs["rip"] == BATCH.edits[0].addr
    returned = (Allocation("grace", 0xFFFFC90000040000, 4096),) if name == "allocate_grace" else ()
    _check(state, (*MEMORY, *returned), REGISTERED)


@pytest.mark.parametrize(
    ("name", "purpose"),
    [
        ("allocate_exec", Allocate("exec", 8192)),
        ("allocate_percpu", Allocate("percpu", 8)),
        ("free", Free(CODE.addr)),
        ("hold", GetModule(OTHER)),
        ("release", PutModule(HELD)),
        ("hook", AddListEntry("die_notifier", DIE)),
        ("unhook_die_notifier", RemoveListEntry("die_notifier", DIE)),
        ("other", OtherCall()),
    ],
)
def test_each_purpose_is_one_of_format_2(name: str, purpose: CallPurpose) -> None:
    """Its record is read up to the call itself, before that has returned."""
    whole = load(STORED / f"{name}.journal").records
    begun = next(number for number, item in enumerate(whole) if item.kind == Kind.CALL_STARTED)
    data = MAGIC + b"".join(encode_record(Kind(item.kind), item.payload) for item in whole[: begun + 1])
    (call,) = parse(data).calls
    assert call.purpose == purpose


def test_the_recovery_table() -> None:
    assert load(STORED / "table.journal").table == CODE.addr
    assert load(STORED / "table_wiped.journal").table is None


def test_a_whole_run_leaves_nothing() -> None:
    state = load(STORED / "whole_run.journal")
    assert state.batches == state.allocations == state.registrations == state.calls == state.notes == ()


@pytest.mark.parametrize("path", sorted(STORED.glob("*.journal")), ids=lambda path: path.stem)
def test_it_goes_on_in_format_2(tmp_path: Path, path: Path) -> None:
    """What is added to it is added to a file of format 2, and the rest of it says the same."""
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    assert copy.read_bytes().startswith(MAGIC_V1)
    before = load(copy)
    journal = Journal.reopen(before)
    assert copy.read_bytes().startswith(MAGIC)
    assert load(copy) == before
    assert copy.stat().st_size >= path.stat().st_size, "it keeps the room that was taken for it"
    batch = journal.edits([Edit(0xFFFFFFFF81000900, b"\x90", b"\xcc")])
    journal.note("returned: 0x0")
    journal.close()
    after = load(copy)
    assert after.batches[-1].number == batch == (0 if not before.batches and path.stem != "whole_run" else 1)
    assert after.notes == ("returned: 0x0",), "in format 2 a note is a note"
    assert list(tmp_path.iterdir()) == [copy]


def test_an_old_journal_that_cannot_be_replaced_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "old.journal"
    shutil.copy(STORED / "free.journal", copy)
    was = copy.read_bytes()
    state = load(copy)

    def refuses(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuses)
        with pytest.raises(JournalError, match="No space left"):
            Journal.reopen(state)
    assert copy.read_bytes() == was and list(tmp_path.iterdir()) == [copy]
    Journal.reopen(state).close()
    assert load(copy) == state


def _old(*items: tuple[Kind, dict[str, object]]) -> bytes:
    records = b"".join(encode_record(kind, encode_facts(facts)) for kind, facts in items)
    return MAGIC_V1 + encode_record(Kind.HEADER, encode_header(HEADER)) + records


@pytest.mark.parametrize(
    "items",
    [
        [(Kind.NOTE, {"text": "call: conquer 0x10"})],
        [(Kind.NOTE, {"text": "call: free"})],
        [(Kind.NOTE, {"text": "call: free sixteen"})],
        [(Kind.NOTE, {"text": "call: allocate data 0x10"})],
        [(Kind.NOTE, {"text": "returned: 0x0"})],
        [(Kind.CALL_DONE, {})],
        [(Kind.CALL_DONE, {"rsp": RSP})],
        [(Kind.NOTE, {"text": "the recovery table is in the guest"})],
        [(Kind.TABLE_WRITTEN, {"addr": CODE.addr})],
        [(Kind.CALL_STARTED_V1, {"vcpu": 1, "raw": "", "regs": {}, "return_addr": CODE.addr, "rsp": RSP})],
        [(Kind.ALLOCATED, {"kind": "exec", "addr": CODE.addr, "size": 4096})],
    ],
)
def test_what_the_old_release_never_wrote_is_refused(items: list[tuple[Kind, dict[str, object]]]) -> None:
    with pytest.raises(JournalError, match="no journal that can be trusted"):
        parse(_old(*items))


def test_other_old_notes_are_for_people() -> None:
    assert parse(_old((Kind.NOTE, {"text": "calls: 7"}))).notes == ("calls: 7",)


def test_the_old_form_of_a_call_is_none_in_format_2() -> None:
    item = {"vcpu": 1, "raw": "", "regs": {}, "return_addr": CODE.addr, "rsp": RSP}
    data = _old((Kind.CALL_STARTED_V1, item)).replace(MAGIC_V1, MAGIC)
    with pytest.raises(JournalError, match="unknown kind 6"):
        parse(data)


def test_a_call_that_was_given_up_is_not_forgotten() -> None:
    """Its process went on with another task; the old release overwrote the first."""
    regs = GuestCall(1, load(STORED / "free_begun.journal").calls[0].regs, 0, 0, OtherCall()).regs
    call = {"vcpu": 1, "raw": "", "regs": dict(regs), "return_addr": CODE.addr}
    state = parse(
        _old(
            (Kind.NOTE, {"text": f"call: free {DATA.addr:#x}"}),
            (Kind.CALL_STARTED_V1, {**call, "rsp": RSP}),
            (Kind.NOTE, {"text": "call: "}),
            (Kind.CALL_STARTED_V1, {**call, "rsp": RSP + 0x4000}),
            (Kind.NOTE, {"text": "returned: 0x0"}),
            (Kind.CALL_DONE, {}),
        )
    )
    assert [(item.rsp, item.purpose) for item in state.calls] == [(RSP, Free(DATA.addr))]
