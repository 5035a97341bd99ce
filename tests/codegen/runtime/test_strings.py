"""Strings that the guest makes are those that the host makes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codegen.compared import Compared
from tests.codegen.scripts import ints


@pytest.mark.parametrize("size", [1, 2, 8, 9, 256])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(ints, ints, ints), min_size=1, max_size=4))
def test_strings_of_any_size(size: int, firings: list[tuple[int, ...]]) -> None:
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
