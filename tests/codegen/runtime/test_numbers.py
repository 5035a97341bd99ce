"""Numbers and strings: the guest converts them as the host does, for every base and any text."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import FaultKind
from tests.codegen.compared import Compared
from tests.codegen.emulated_kernel import KMEM
from tests.codegen.machine import Machine
from tests.codegen.records import fault, fired
from tests.codegen.scripts import ints


@lru_cache
def _both(body: str) -> Compared:
    return Compared(f"fbt::: {{ {body} }}", bufsize=1 << 13)


@settings(max_examples=60)
@given(ints, st.one_of(st.sampled_from((2, 8, 10, 16, 36)), st.integers(-2, 40)))
def test_a_number_is_written_in_any_base_as_the_host_writes_it(value: int, base: int) -> None:
    _both("trace(lltostr(arg0, arg1)); trace(strlen(lltostr(arg0)));").fire(value, base)


@lru_cache
def _reader() -> Machine:
    return Machine("fbt::: { this->s = stringof((char *)arg0); trace(strtoll(this->s, arg1)); }")


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _expected(text: str, base: int) -> int:
    """strtoll(3): what is too large is the largest number of its sign."""
    text = text.lstrip("\t\n\v\f\r ")
    negative = text.startswith("-")
    text = text[1:] if text[:1] in ("+", "-") else text
    if base == 16 and text[:2].lower() == "0x" and text[2:3].lower() in tuple(_DIGITS[:16]):
        text = text[2:]
    value = 0
    for char in text.lower():
        digit = _DIGITS.find(char)
        if not 0 <= digit < base:
            break
        value = value * base + digit
    value = -value if negative else value
    return max(-(1 << 63), min(value, (1 << 63) - 1))


_texts = st.one_of(
    st.text("0123456789abfxXzZ+- \t", max_size=24),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(("", " ", "-", "+", " -", "0x", "-0x")),
        st.integers(0, 1 << 70),
        st.sampled_from(("", "z", " 1")),
    ),
)


@settings(max_examples=150)
@given(_texts, st.sampled_from((2, 8, 10, 16, 36)))
def test_a_number_is_read_from_any_text_as_strtoll_reads_it(text: str, base: int) -> None:
    guest = _reader()
    guest.write(KMEM, text.encode() + b"\0")
    record = fired(guest, rdi=KMEM, rsi=base)
    assert record.fault == 0
    assert int.from_bytes(record.payload[:8], "little", signed=True) == _expected(text, base)


@pytest.mark.parametrize("base", [0, 1, 37, -1, 1 << 40])
@pytest.mark.parametrize("call", ["lltostr(arg0, arg1)", "strtoll(execname, arg1)"])
def test_a_base_outside_of_2_to_36_is_a_fault(call: str, base: int) -> None:
    guest = Machine(f"fbt::: {{ trace({call}); }}")
    assert fault(fired(guest, rdi=5, rsi=base))[0] == FaultKind.ILLOP


def test_a_random_number_has_every_bit_in_both_states() -> None:
    guest = Machine("fbt::: { trace(rand()); }")
    numbers = [int.from_bytes(fired(guest).payload[:8], "little") for _ in range(64)]
    assert len(set(numbers)) > 60


@lru_cache
def _patched(size: int) -> Compared:
    return Compared(
        'string s; fbt::: { s = arg0 & 1 ? execname : arg0 & 2 ? "" : "0123456"; s[arg1] = arg2; trace(s); '
        "s[0]++; trace(s); }",
        bufsize=1 << 13,
        strsize=size,
    )


@pytest.mark.parametrize("size", [8, 256])
@settings(max_examples=60)
@given(st.integers(0, 3), st.one_of(st.integers(-1, 10), st.sampled_from((255, 256)), ints), ints)
def test_a_character_is_replaced_as_the_host_replaces_it(size: int, text: int, index: int, char: int) -> None:
    _patched(size).fire(text, index, char)
