"""Strings that the guest makes are those that the host makes."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codegen.compared import Compared
from tests.codegen.emulated_kernel import KMEM
from tests.codegen.machine import Machine
from tests.codegen.records import fired
from tests.codegen.scripts import ints


@pytest.mark.parametrize("size", [1, 2, 8, 9, 256])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(ints, ints, ints), min_size=1, max_size=4))
def test_strings_are_cut_at_any_size_as_on_the_host(size: int, firings: list[tuple[int, ...]]) -> None:
    """``strsize`` cuts strings and keys, and nothing is written behind them."""
    both = Compared(
        """string s; self string t; string g[string];
        fbt::: {
            s = arg0 ? strjoin(s, lltostr(arg1)) : basename("/usr/lib/x/"); self->t = strjoin(execname, s);
            g[s] = dirname(lltostr(arg2, 16)); g["k"] = s; trace(g[s]); trace(self->t); trace(strlen(s));
            @[s, self->t, execname] = count();
        }""",
        strsize=size,
        dynvarsize=1 << 14,
        aggsize=1 << 15,
    )
    for args in firings:
        both.fire(*args)
    both.check()


_CHARACTERS = st.sampled_from((0, 1, ord("a"), ord("A"), ord("z"), ord("["), 0x80, 0xE9, 0xFF, 256 + ord("a"), -1))


@lru_cache
def _reader() -> Machine:
    calls = ("toupper(this->s)", "tolower(this->s)", "strchr(this->s, arg1)", "strrchr(this->s, arg1)")
    traced = " ".join(f"trace({call});" for call in calls)
    return Machine(
        f"fbt::: {{ this->s = stringof((char *)arg0); {traced} "
        'trace(strjoin(this->s, "-end")); trace(strlen(this->s)); }',
        strsize=16,
    )


@settings(max_examples=150)
@given(st.binary(max_size=20), _CHARACTERS)
def test_strings_of_any_bytes_are_as_on_the_host(text: bytes, char: int) -> None:
    guest = _reader()
    guest.write(KMEM, text + b"\0")
    payload = fired(guest, rdi=KMEM, rsi=char).payload
    cut = text.split(b"\0")[0][:15]
    found = [payload[at : at + 16].split(b"\0")[0] for at in range(0, 80, 16)]
    wanted = bytes([char & 0xFF])
    first, last = cut.find(wanted), cut.rfind(wanted)
    if not char & 0xFF:
        first = last = len(cut)
    assert found == [
        bytes(c - 32 if 97 <= c <= 122 else c for c in cut),
        bytes(c + 32 if 65 <= c <= 90 else c for c in cut),
        cut[first:] if first >= 0 else b"",
        cut[last:] if last >= 0 else b"",
        (cut + b"-end")[:15],
    ]
    assert int.from_bytes(payload[80:88], "little") == len(cut)
