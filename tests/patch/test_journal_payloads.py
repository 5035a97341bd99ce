"""What the small records say is read back as it was written, and nothing else is read at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.guest.calls import (
    GENERAL_REGISTERS,
    AddListEntry,
    Allocate,
    Free,
    GetModule,
    GuestCall,
    OtherCall,
    PutModule,
    RemoveListEntry,
)
from probekit.guest.linux import Allocation
from probekit.patch import journal_payloads as payloads
from probekit.patch.journal_payloads import CallResult, JournalHeader, Registration, decode_facts, encode_facts
from probekit.patch.journal_records import RecordError

WORDS = st.integers(0, (1 << 64) - 1)
KERNEL = st.integers(1 << 63, (1 << 64) - 1)
SIZES = st.integers(1, (1 << 40) - 1)
TEXTS = st.text(max_size=40)
MEMORY_KINDS = st.sampled_from(("exec", "data", "percpu", "grace"))
LIST_ENTRY_KINDS = st.sampled_from(("die_notifier", "bpf_ksym"))
PURPOSES = st.one_of(
    st.builds(Allocate, MEMORY_KINDS, SIZES),
    st.builds(Free, st.integers(1, (1 << 64) - 1)),
    st.builds(GetModule, KERNEL),
    st.builds(PutModule, KERNEL),
    st.builds(AddListEntry, LIST_ENTRY_KINDS, KERNEL),
    st.builds(RemoveListEntry, LIST_ENTRY_KINDS, KERNEL),
    st.just(OtherCall()),
)
CALLS = st.builds(
    GuestCall,
    st.integers(0, 65535),
    st.fixed_dictionaries(dict.fromkeys(GENERAL_REGISTERS, WORDS)),
    KERNEL,
    KERNEL,
    PURPOSES,
)
HEADERS = st.builds(
    JournalHeader,
    TEXTS,
    st.integers(0, (1 << 32) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=20),
    WORDS,
    st.binary(max_size=20),
)
REGISTRATIONS = st.one_of(
    st.builds(lambda a, b: Registration("timer", (a, b)), WORDS, WORDS),
    st.builds(lambda a, b, c: Registration("tracepoint", (a, b, c)), WORDS, WORDS, WORDS),
    st.builds(lambda kind, a: Registration(kind, (a,)), st.sampled_from(("module", "die_notifier", "bpf_ksym")), WORDS),
    st.builds(lambda words: Registration("telegraph", tuple(words)), st.lists(WORDS, max_size=8)),
)
ALLOCATIONS = st.one_of(
    st.builds(Allocation, st.sampled_from(("exec", "data", "grace")), KERNEL, SIZES),
    st.builds(lambda addr, size: Allocation("percpu", addr, size), st.integers(1, (1 << 64) - 1), SIZES),
)
FORMS: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any], st.SearchStrategy[Any]]] = {
    "header": (payloads.encode_header, payloads.decode_header, HEADERS),
    "batch": (payloads.encode_batch, payloads.decode_batch, WORDS),
    "allocation": (payloads.encode_allocation, payloads.decode_allocation, ALLOCATIONS),
    "freed": (payloads.encode_freed, payloads.decode_freed, WORDS),
    "registrations": (
        payloads.encode_registrations, payloads.decode_registrations, st.lists(REGISTRATIONS, max_size=5),
    ),
    "call": (payloads.encode_call, payloads.decode_call, CALLS),
    "call_result": (
        payloads.encode_call_result, payloads.decode_call_result, st.builds(CallResult, KERNEL, WORDS),
    ),
    "call_done": (payloads.encode_call_done, payloads.decode_call_done, KERNEL),
    "table": (payloads.encode_table, payloads.decode_table, KERNEL),
    "note": (payloads.encode_note, payloads.decode_note, TEXTS),
}  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 65), 1 << 65), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40)
@given(data=st.data())
def test_what_was_written_is_read_back(form: str, data: st.DataObject) -> None:
    encode, decode, items = FORMS[form]
    item = data.draw(items)
    assert decode(encode(item)) == item


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40)
@given(data=st.data())
def test_one_field_that_is_anything(form: str, data: st.DataObject) -> None:
    """It is refused, or read as something that would be written the same way."""
    encode, decode, items = FORMS[form]
    facts = json.loads(encode(data.draw(items)))
    facts[data.draw(st.sampled_from(sorted(facts)))] = data.draw(VALUES)
    try:
        found = decode(json.dumps(facts).encode())
    except RecordError:
        return
    assert decode(encode(found)) == found


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_field_too_many_and_one_too_few(form: str, data: st.DataObject) -> None:
    encode, decode, items = FORMS[form]
    facts = json.loads(encode(data.draw(items)))
    with pytest.raises(RecordError, match="fields"):
        decode(encode_facts({**facts, "more": 1}))
    del facts[data.draw(st.sampled_from(sorted(facts)))]
    with pytest.raises(RecordError, match="fields"):
        decode(encode_facts(facts))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40)
@given(data=st.binary(max_size=80))
def test_any_bytes(form: str, data: bytes) -> None:
    with pytest.raises(RecordError):
        FORMS[form][1](data)


@given(words=st.lists(st.one_of(VALUES, st.sampled_from(("allocate", "free", "hold", "unhook", "exec", "bpf_ksym")))))
def test_a_purpose_of_any_words(words: list[Any]) -> None:
    try:
        purpose = payloads.decode_purpose(words)
    except RecordError:
        return
    assert (purpose == OtherCall() and words == ["other"]) or purpose != OtherCall()


@pytest.mark.parametrize(
    "words",
    [
        None, "free", [], [7], ["conquer", 1], ["free"], ["free", 1, 2], ["free", "1"], ["free", True], ["free", 0],
        ["free", 1 << 64], ["free", -1], ["free", 1.0], ["allocate", "exec"], ["allocate", "user", 8],
        ["allocate", "exec", 0], ["allocate", "exec", 1 << 40], ["allocate", 8, "exec"], ["hold", 0x1000],
        ["release", 0x1000], ["hook", "timer", 1 << 63], ["unhook", "bpf_ksym", 0x1000], ["other", 1],
        [["free"], 1],
    ],
)  # fmt: skip
def test_no_purpose(words: object) -> None:
    with pytest.raises(RecordError):
        payloads.decode_purpose(words)


CALL = {
    "vcpu": 1,
    "regs": dict.fromkeys(GENERAL_REGISTERS, 0),
    "return_addr": 1 << 63,
    "rsp": 1 << 63,
    "purpose": ["other"],
}


@pytest.mark.parametrize(
    "change",
    [
        {"vcpu": -1}, {"vcpu": 65536}, {"vcpu": "1"}, {"rsp": 8}, {"return_addr": 0x400000}, {"regs": []},
        {"regs": dict.fromkeys(GENERAL_REGISTERS[1:], 0)}, {"regs": {**CALL["regs"], "cr3": 0}},  # type: ignore[dict-item]
        {"regs": {**CALL["regs"], "rax": 1 << 64}}, {"regs": {**CALL["regs"], "rax": None}},  # type: ignore[dict-item]
    ],
)  # fmt: skip
def test_no_call(change: dict[str, object]) -> None:
    assert payloads.decode_call(encode_facts(CALL)).purpose == OtherCall()
    with pytest.raises(RecordError):
        payloads.decode_call(encode_facts({**CALL, **change}))


@pytest.mark.parametrize(
    "facts",
    [
        {"kind": "exec", "addr": 0x1000, "size": 1},
        {"kind": "percpu", "addr": 0, "size": 1},
        {"kind": "vmalloc", "addr": 1 << 63, "size": 1},
        {"kind": "data", "addr": 1 << 63, "size": 0},
        {"kind": "data", "addr": 1 << 63, "size": 1 << 40},
        {"kind": ["data"], "addr": 1 << 63, "size": 8},
    ],
)
def test_no_memory_of_ours(facts: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        payloads.decode_allocation(encode_facts(facts))


@pytest.mark.parametrize(("kind", "count"), [("timer", 1), ("tracepoint", 2), ("module", 2), ("bpf_ksym", 0)])
def test_a_known_registration_has_its_words(kind: str, count: int) -> None:
    with pytest.raises(RecordError, match=f"a {kind} has {count} words"):
        payloads.decode_registrations(encode_facts({"items": [[kind, *[1] * count]]}))


@pytest.mark.parametrize("start", [True, "1", None])
def test_no_time(start: object) -> None:
    facts = {"target": "", "host_pid": 1, "host_start": start, "build_id": "", "base": 0, "cookie": ""}
    with pytest.raises(RecordError, match="no time"):
        payloads.decode_header(encode_facts(facts))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(word: str) -> None:
    text = f'{{"target":"","host_pid":1,"host_start":{word},"build_id":"","base":0,"cookie":""}}'
    with pytest.raises(RecordError):
        payloads.decode_header(text.encode())
    assert not math.isfinite(float(word))


def test_the_empty_record() -> None:
    payloads.decode_table_wiped(payloads.encode_table_wiped())
    with pytest.raises(RecordError):
        payloads.decode_table_wiped(encode_facts({"addr": 1}))
    with pytest.raises(RecordError):
        decode_facts(b"[]")
