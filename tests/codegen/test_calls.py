"""Calls of subroutines: each gives the host's result for the same arguments, and its fault for bad ones."""

from __future__ import annotations

import pytest

from probekit.codegen.calls import GUEST_SUBROUTINES
from probekit.ir.names import CALLS
from tests.codegen.compared import compare
from tests.codegen.emulated_kernel import KMEM

_ARGUMENTS = ((0, 3, 1), (17, 0, 2), (-1, -2, 64), (255, 1, -1), (1 << 62, 5, 5))
_STRINGS = """string s; string t; fbt::: {
    s = lltostr(arg0); t = strjoin(execname, lltostr(arg1, 16)); """


@pytest.mark.parametrize(
    "call",
    [
        "strlen(t)",
        "index(t, s)",
        "index(t, s, arg2)",
        "rindex(t, lltostr(arg2))",
        "rindex(t, s, arg1)",
        "substr(t, arg1)",
        "substr(t, arg1, arg2)",
        "strchr(t, arg0)",
        "strrchr(t, '0')",
        "strstr(t, s)",
        "strtok(t, s)",
        "strtoll(t, 16)",
        "strtoll(s)",
        "lltostr(arg0, 8)",
        "toupper(t)",
        "tolower(t)",
        'basename(strjoin(t, "/x"))',
        'dirname(strjoin(t, "/x"))',
        'cleanpath(strjoin("/a/../", t))',
        "htons(arg0)",
        "ntohl(arg0)",
        "htonll(arg0)",
    ],
)
def test_a_subroutine_gives_what_the_host_gives(call: str) -> None:
    compare(f"{_STRINGS} trace({call}); @[{call}] = count(); }}", *_ARGUMENTS, aggsize=1 << 14)


def test_two_calls_of_strtok_go_through_one_string() -> None:
    compare(
        'string s; fbt::: { s = strtok("/usr/lib//x", "/"); trace(s); trace(strtok(NULL, "/")); '
        'trace(strtok(NULL, "/l")); trace(strtok(NULL, "/")); }',
        (1,),
        (2,),
    )


@pytest.mark.parametrize(
    "body",
    [
        "this->p = alloca(arg0); trace(1);",
        "this->p = (char *)alloca(16); bcopy((char *)arg0, this->p, arg1); trace(this->p[0]);",
        "trace(lltostr(arg0, arg1));",
        "trace(strtoll(execname, arg1));",
    ],
)
def test_what_a_subroutine_refuses_is_the_same_fault_as_on_the_host(body: str) -> None:
    both = compare(f"fbt::: {{ {body} }}", (8, 10), (-1, 1), (1 << 63, 99), (5, -1), (KMEM, 16), scratchsize=256)
    assert both.faults > 0


def test_only_subroutines_of_the_language_are_written() -> None:
    assert CALLS.keys() >= GUEST_SUBROUTINES
