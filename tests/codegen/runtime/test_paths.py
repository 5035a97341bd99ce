"""Paths: the guest takes any of them apart as the host does, and by the rules of basename(1) and dirname(1)."""

from __future__ import annotations

import posixpath
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.interp import strings
from tests.codegen.emulated_kernel import KMEM
from tests.codegen.machine import Machine
from tests.codegen.records import fired

_CALLS = ("basename", "dirname", "cleanpath")


@lru_cache
def _machine() -> Machine:
    traced = " ".join(f"trace({call}(this->s));" for call in _CALLS)
    return Machine(f"fbt::: {{ this->s = stringof((char *)arg0); {traced} }}", strsize=32)


def _found(path: bytes) -> list[bytes]:
    guest = _machine()
    guest.write(KMEM, path + b"\0")
    payload = fired(guest, rdi=KMEM).payload
    return [payload[at : at + 32].split(b"\0")[0] for at in (0, 32, 64)]


@settings(max_examples=200)
@given(st.text("/.ab", max_size=24).map(str.encode))
def test_any_path_is_taken_apart_as_the_host_does(path: bytes) -> None:
    assert _found(path) == [getattr(strings, call)(path) for call in _CALLS]


@pytest.mark.parametrize("path", ["/usr/lib/x", "x", "/x", "a/b", "/usr//lib"])
def test_usual_paths_are_taken_apart_as_the_library_does(path: str) -> None:
    base, directory, _ = _found(path.encode())
    assert base.decode() == posixpath.basename(path)
    assert directory.decode() == (posixpath.dirname(path) or ".").rstrip("/") or "/"


@pytest.mark.parametrize(
    ("path", "clean"), [(b"/a/../b", b"/b"), (b"/a/./b//c", b"/a/b/c"), (b"/..", b"/"), (b"", b"")]
)
def test_a_clean_path_has_no_needless_parts(path: bytes, clean: bytes) -> None:
    assert _found(path)[2] == clean
